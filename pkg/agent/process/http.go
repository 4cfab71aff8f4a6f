package process

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/output"
	"github.com/innerdock/innerdock/pkg/agent/reply"
)

// maxSpec caps the body that asks for a process; the kernel's own limit for
// arguments and environment is 2 MiB.
const maxSpec = 4 << 20

// Register adds the routes of the process API to mux.
func (t *Table) Register(mux *http.ServeMux) {
	for pattern, h := range map[string]reply.Handler{
		"GET /processes":               t.list,
		"POST /processes":              t.exec,
		"GET /processes/{pid}":         t.get,
		"GET /processes/{pid}/stdout":  t.raw,
		"GET /processes/{pid}/stderr":  t.raw,
		"GET /processes/{pid}/output":  t.output,
		"POST /processes/{pid}/signal": t.signal,
		"POST /processes/{pid}/stdin":  t.stdin,
	} {
		mux.Handle(pattern, h)
	}
}

func (t *Table) list(w http.ResponseWriter, _ *http.Request) error {
	reply.JSON(w, http.StatusOK, map[string]any{"processes": t.List()})
	return nil
}

func (t *Table) exec(w http.ResponseWriter, r *http.Request) error {
	wait, err := reply.Bool(r, "wait")
	if err != nil {
		return err
	}
	var spec innerdock.ProcessSpec
	if err := reply.Body(w, r, maxSpec, &spec); err != nil {
		return err
	}
	e, err := t.Exec(spec)
	if err != nil {
		return err
	}
	if reply.WantsEvents(r) {
		events := reply.NewEvents(w, http.StatusCreated)
		info := e.info()
		if events.Send("started", innerdock.OutputEvent{Process: &info}) == nil && events.Flush() == nil {
			stream(r.Context(), events, e, 0, 0)
		}
		return nil
	}
	if wait {
		select {
		case <-e.Done():
		case <-r.Context().Done(): // the client is gone; the process goes on
		}
	}
	reply.JSON(w, http.StatusCreated, e.info())
	return nil
}

// find returns the process that the path names.
func (t *Table) find(r *http.Request) (*entry, error) {
	pid, err := strconv.Atoi(r.PathValue("pid"))
	if err != nil || pid <= 0 {
		return nil, innerdock.Errorf(innerdock.CodeInvalid, "%q is not a process ID", r.PathValue("pid"))
	}
	return t.Get(pid)
}

func (t *Table) get(w http.ResponseWriter, r *http.Request) error {
	e, err := t.find(r)
	if err != nil {
		return err
	}
	wait, err := reply.Wait(r, "wait")
	if err != nil {
		return err
	}
	reply.Until(r.Context(), wait, e.Done())
	reply.JSON(w, http.StatusOK, e.info())
	return nil
}

func (t *Table) raw(w http.ResponseWriter, r *http.Request) error {
	e, err := t.find(r)
	if err != nil {
		return err
	}
	offset, err := reply.Offset(r, "offset")
	if err != nil {
		return err
	}
	buffer := e.stdout
	if strings.HasSuffix(r.URL.Path, "/stderr") {
		buffer = e.stderr
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	Raw(w, buffer, offset)
	return nil
}

// Raw answers with what buffer holds now, from offset on, and says in a header
// where that begins. It stops early where the bytes to come were dropped.
func Raw(w http.ResponseWriter, buffer *output.Buffer, offset int64) {
	end := buffer.Len()
	chunk := make([]byte, 32<<10)
	n, at := buffer.ReadAt(chunk, offset)
	w.Header().Set(innerdock.OutputHeader, strconv.FormatInt(at, 10))
	w.WriteHeader(http.StatusOK)
	for n > 0 && at < end {
		if _, err := w.Write(chunk[:min(int64(n), end-at)]); err != nil {
			return
		}
		next := at + int64(n)
		if n, at = buffer.ReadAt(chunk, next); at != next {
			return
		}
	}
}

func (t *Table) output(w http.ResponseWriter, r *http.Request) error {
	e, err := t.find(r)
	if err != nil {
		return err
	}
	stdout, err := reply.Offset(r, "stdout_offset")
	if err != nil {
		return err
	}
	stderr, err := reply.Offset(r, "stderr_offset")
	if err != nil {
		return err
	}
	stream(r.Context(), reply.NewEvents(w, http.StatusOK), e, stdout, stderr)
	return nil
}

func (t *Table) signal(w http.ResponseWriter, r *http.Request) error {
	e, err := t.find(r)
	if err != nil {
		return err
	}
	var body struct {
		Signal string `json:"signal"`
	}
	if err := reply.Body(w, r, 4<<10, &body); err != nil {
		return err
	}
	sig, err := parseSignal(body.Signal)
	if err != nil {
		return err
	}
	if err := e.Signal(sig); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// parseSignal reads a signal's name (SIGTERM, TERM, term) or number.
func parseSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n > 0 && n <= 64 {
			return syscall.Signal(n), nil
		}
	} else if sig := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")); sig != 0 {
		return sig, nil
	}
	return 0, innerdock.Errorf(innerdock.CodeInvalid, "signal=%q is not a signal; name one such as SIGTERM", s)
}

func (t *Table) stdin(w http.ResponseWriter, r *http.Request) error {
	e, err := t.find(r)
	if err != nil {
		return err
	}
	last, err := reply.Bool(r, "close")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if err := e.WriteStdin(ctx, r.Body, last); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
