package files

import (
	"io"
	"io/fs"
	"net/http"
	"strconv"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/reply"
)

// Register adds the routes of the file API to mux.
func (t Tree) Register(mux *http.ServeMux) {
	for pattern, h := range map[string]reply.Handler{
		"GET /files/content":    t.download,
		"PUT /files/content":    t.upload,
		"DELETE /files":         t.remove,
		"GET /files/info":       t.info,
		"GET /files/list":       t.list,
		"POST /files/directory": t.makeDir,
	} {
		mux.Handle(pattern, h)
	}
}

func path(r *http.Request) string { return r.URL.Query().Get("path") }

func (t Tree) download(w http.ResponseWriter, r *http.Request) error {
	f, info, err := t.Open(path(r))
	if err != nil {
		return err
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	if size := info.Size(); size > 0 { // what has no size may have content: /proc
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		_, _ = io.CopyN(w, f, size)
		return nil
	}
	_, _ = io.Copy(w, f)
	return nil
}

func (t Tree) upload(w http.ResponseWriter, r *http.Request) error {
	mode, err := parseMode(r.URL.Query().Get("mode"))
	if err != nil {
		return err
	}
	info, err := t.Write(path(r), mode, r.Body)
	if err != nil {
		return err
	}
	reply.JSON(w, http.StatusCreated, info)
	return nil
}

func (t Tree) remove(w http.ResponseWriter, r *http.Request) error {
	recursive, err := reply.Bool(r, "recursive")
	if err != nil {
		return err
	}
	if err := t.Remove(path(r), recursive); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (t Tree) info(w http.ResponseWriter, r *http.Request) error {
	info, err := t.Info(path(r))
	if err != nil {
		return err
	}
	reply.JSON(w, http.StatusOK, info)
	return nil
}

func (t Tree) list(w http.ResponseWriter, r *http.Request) error {
	list, err := t.List(path(r))
	if err != nil {
		return err
	}
	reply.JSON(w, http.StatusOK, map[string]any{"files": list})
	return nil
}

func (t Tree) makeDir(w http.ResponseWriter, r *http.Request) error {
	mode, err := parseMode(r.URL.Query().Get("mode"))
	if err != nil {
		return err
	}
	info, err := t.MakeDir(path(r), mode)
	if err != nil {
		return err
	}
	reply.JSON(w, http.StatusCreated, info)
	return nil
}

// parseMode reads permission bits in octal; nil for none.
func parseMode(s string) (*fs.FileMode, error) {
	if s == "" {
		return nil, nil
	}
	n, err := strconv.ParseUint(s, 8, 12)
	if err != nil {
		return nil, innerdock.Errorf(innerdock.CodeInvalid, "mode=%q is not permission bits in octal, such as 0644", s)
	}
	mode := fs.FileMode(n & 0o777)
	for bit, flag := range map[uint64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if n&bit != 0 {
			mode |= flag
		}
	}
	return &mode, nil
}
