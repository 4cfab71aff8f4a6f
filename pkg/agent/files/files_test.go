package files

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/innerdock/innerdock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type rig struct {
	t   *testing.T
	dir string // the workspace
	mux *http.ServeMux
}

func newRig(t *testing.T) *rig {
	r := &rig{t, t.TempDir(), http.NewServeMux()}
	Tree{Dir: func() string { return r.dir }}.Register(r.mux)
	return r
}

func (r *rig) do(method, route, path, query, body string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, route+"?path="+url.QueryEscape(path)+query, strings.NewReader(body))
	w := httptest.NewRecorder()
	r.mux.ServeHTTP(w, req)
	return w
}

func (r *rig) put(path, query, body string) innerdock.FileInfo {
	r.t.Helper()
	w := r.do("PUT", "/files/content", path, query, body)
	if w.Code != http.StatusCreated {
		r.t.Fatalf("put %s: %d %s", path, w.Code, w.Body)
	}
	var info innerdock.FileInfo
	if err := json.Unmarshal(w.Body.Bytes(), &info); err != nil {
		r.t.Fatal(err)
	}
	return info
}

func (r *rig) path(p string) string { return filepath.Join(r.dir, p) }

func (r *rig) content(p string) string {
	r.t.Helper()
	b, err := os.ReadFile(r.path(p))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

func (r *rig) mode(p string) string {
	r.t.Helper()
	info, err := os.Stat(r.path(p))
	if err != nil {
		r.t.Fatal(err)
	}
	return fmt.Sprintf("%04o", info.Sys().(*syscall.Stat_t).Mode&0o7777)
}

func TestUploadAndDownload(t *testing.T) {
	r := newRig(t)
	binary := "\x00\xff\r\n" + strings.Repeat("x", 1<<20)
	info := r.put("a/b/c.bin", "", binary)
	if info.Path != r.path("a/b/c.bin") || info.Size != int64(len(binary)) || info.Mode != "0644" || info.Type != "file" || info.Name != "c.bin" {
		t.Errorf("info: %+v", info)
	}
	w := r.do("GET", "/files/content", r.path("a/b/c.bin"), "", "")
	if w.Code != 200 || w.Body.String() != binary || w.Header().Get("Content-Type") != "application/octet-stream" || w.Header().Get("Content-Length") != fmt.Sprint(len(binary)) {
		t.Errorf("download: %d, %d bytes, %v", w.Code, w.Body.Len(), w.Header())
	}
	r.put("empty", "", "")
	if w := r.do("GET", "/files/content", "empty", "", ""); w.Code != 200 || w.Body.Len() != 0 {
		t.Errorf("empty: %d %q", w.Code, w.Body)
	}
	if w := r.do("GET", "/files/content", "/proc/self/status", "", ""); !strings.Contains(w.Body.String(), "Pid:") {
		t.Errorf("a file without a size: %d %q", w.Code, w.Body)
	}
}

func TestUploadKeepsModeAndOwner(t *testing.T) {
	r := newRig(t)
	r.put("script", "&mode=0755", "one")
	if m := r.mode("script"); m != "0755" {
		t.Errorf("mode %s", m)
	}
	if err := os.Chown(r.path("script"), 1234, 5678); err != nil {
		t.Fatal(err)
	}
	info := r.put("script", "", "two")
	if r.content("script") != "two" || info.Mode != "0755" || info.UID != 1234 || info.GID != 5678 {
		t.Errorf("after the second: %+v", info)
	}
	r.put("script", "&mode=4711", "three")
	if m := r.mode("script"); m != "4711" {
		t.Errorf("mode %s", m)
	}
}

func TestUploadFollowsSymlinks(t *testing.T) {
	r := newRig(t)
	os.MkdirAll(r.path("real/deep"), 0o755)
	for link, target := range map[string]string{
		"link": "real/file", "dangling": "real/new/file2", "dir": "real/deep", "chain": "link", "absolute": r.path("real/file3"), "loop": "loop",
	} {
		if err := os.Symlink(target, r.path(link)); err != nil {
			t.Fatal(err)
		}
	}
	os.WriteFile(r.path("real/file"), []byte("old"), 0o600)
	for path, real := range map[string]string{
		"link": "real/file", "chain": "real/file", "dangling": "real/new/file2", "absolute": "real/file3",
		"dir/file4": "real/deep/file4", "dir/../file5": "real/file5", // as the kernel sees it, not as text
	} {
		if info := r.put(path, "", "by "+path); info.Path != r.path(real) || info.Type != "file" {
			t.Errorf("%s: %+v", path, info)
		}
		if got := r.content(real); got != "by "+path {
			t.Errorf("%s: %s holds %q", path, real, got)
		}
	}
	if info, err := os.Lstat(r.path("link")); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Error("the link was replaced")
	}
	if w := r.do("PUT", "/files/content", "loop", "", "x"); w.Code != http.StatusBadRequest {
		t.Errorf("loop: %d %s", w.Code, w.Body)
	}
}

// TestUploadIsAtomic: a body that breaks off leaves the old file and no other.
func TestUploadIsAtomic(t *testing.T) {
	r := newRig(t)
	r.put("file", "", "old")
	req := httptest.NewRequest("PUT", "/files/content?path=file", io.MultiReader(strings.NewReader("half"), broken{}))
	w := httptest.NewRecorder()
	r.mux.ServeHTTP(w, req)
	if w.Code != http.StatusBadRequest || r.content("file") != "old" {
		t.Errorf("%d %s, and the file holds %q", w.Code, w.Body, r.content("file"))
	}
	if entries, _ := os.ReadDir(r.dir); len(entries) != 1 {
		t.Errorf("left: %v", entries)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestListAndInfo(t *testing.T) {
	r := newRig(t)
	r.put("b", "", "12")
	r.put("a/x", "", "")
	os.Symlink("b", r.path("c"))
	syscall.Mkfifo(r.path("d"), 0o600)
	var list struct{ Files []innerdock.FileInfo }
	w := r.do("GET", "/files/list", ".", "", "")
	if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range list.Files {
		got = append(got, fmt.Sprintf("%s %s %s", f.Name, f.Type, f.Target))
	}
	if want := "[a directory  b file  c symlink b d other ]"; fmt.Sprint(got) != want {
		t.Errorf("list: %q", got)
	}
	if w := r.do("GET", "/files/list", "a", "", ""); !strings.Contains(w.Body.String(), `"files":[{`) {
		t.Errorf("list: %s", w.Body)
	}
	os.Remove(r.path("a/x"))
	if w := r.do("GET", "/files/list", "a", "", ""); strings.TrimSpace(w.Body.String()) != `{"files":[]}` {
		t.Errorf("an empty directory: %s", w.Body)
	}
	if w := r.do("GET", "/files/info", "c", "", ""); !strings.Contains(w.Body.String(), `"type":"symlink","target":"b"`) {
		t.Errorf("info: %s", w.Body)
	}
}

func TestRemoveAndMakeDir(t *testing.T) {
	r := newRig(t)
	if w := r.do("POST", "/files/directory", "x/y", "&mode=0700", ""); w.Code != http.StatusCreated || r.mode("x/y") != "0700" || r.mode("x") != "0755" {
		t.Errorf("make: %d %s", w.Code, w.Body)
	}
	if w := r.do("POST", "/files/directory", "x/y", "", ""); w.Code != http.StatusCreated || r.mode("x/y") != "0700" {
		t.Errorf("again: %d %s", w.Code, w.Body)
	}
	if w := r.do("DELETE", "/files", "x", "", ""); w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "recursive=true") {
		t.Errorf("remove a full directory: %d %s", w.Code, w.Body)
	}
	if w := r.do("DELETE", "/files", "x/y", "", ""); w.Code != http.StatusNoContent {
		t.Errorf("remove an empty one: %d %s", w.Code, w.Body)
	}
	r.put("x/z/file", "", "")
	os.Symlink("x", r.path("link"))
	if w := r.do("DELETE", "/files", "link", "&recursive=true", ""); w.Code != http.StatusNoContent {
		t.Errorf("remove a link: %d %s", w.Code, w.Body)
	}
	r.content("x/z/file") // the link went, not what it names
	if w := r.do("DELETE", "/files", "x", "&recursive=true", ""); w.Code != http.StatusNoContent {
		t.Errorf("remove all: %d %s", w.Code, w.Body)
	}
}

func TestErrors(t *testing.T) {
	r := newRig(t)
	r.put("file", "", "x")
	os.Mkdir(r.path("dir"), 0o755)
	syscall.Mkfifo(r.path("fifo"), 0o600)
	long := strings.Repeat("x", 300)
	for _, c := range []struct {
		method, route, path, query string
		code                       innerdock.Code
	}{
		{"GET", "/files/content", "missing", "", innerdock.CodeNotFound},
		{"GET", "/files/content", "dir", "", innerdock.CodeInvalid},
		{"GET", "/files/content", "fifo", "", innerdock.CodeInvalid},
		{"GET", "/files/content", "/dev/zero", "", innerdock.CodeInvalid},
		{"GET", "/files/content", "file/x", "", innerdock.CodeInvalid},
		{"GET", "/files/content", "", "", innerdock.CodeInvalid},
		{"GET", "/files/content", "a\x00b", "", innerdock.CodeInvalid},
		{"GET", "/files/content", long, "", innerdock.CodeInvalid},
		{"PUT", "/files/content", "", "", innerdock.CodeInvalid},
		{"PUT", "/files/content", "dir", "", innerdock.CodeInvalid},
		{"PUT", "/files/content", "dir/", "", innerdock.CodeInvalid},
		{"PUT", "/files/content", "dir/..", "", innerdock.CodeInvalid},
		{"PUT", "/files/content", "/", "", innerdock.CodeInvalid},
		{"PUT", "/files/content", "fifo", "", innerdock.CodeInvalid},
		{"PUT", "/files/content", "file/x", "", innerdock.CodeInvalid},
		{"PUT", "/files/content", "/proc/nothing/x", "", innerdock.CodeNotFound},
		{"PUT", "/files/content", long, "", innerdock.CodeInvalid},
		{"PUT", "/files/content", "m", "&mode=rwx", innerdock.CodeInvalid},
		{"PUT", "/files/content", "m", "&mode=99999", innerdock.CodeInvalid},
		{"PUT", "/files/content", "m", "&mode=010000", innerdock.CodeInvalid},
		{"DELETE", "/files", "missing", "", innerdock.CodeNotFound},
		{"DELETE", "/files", "missing", "&recursive=true", innerdock.CodeNotFound},
		{"DELETE", "/files", "/", "&recursive=true", innerdock.CodeInvalid},
		{"DELETE", "/files", "file", "&recursive=perhaps", innerdock.CodeInvalid},
		{"GET", "/files/info", "missing", "", innerdock.CodeNotFound},
		{"GET", "/files/list", "file", "", innerdock.CodeInvalid},
		{"GET", "/files/list", "missing", "", innerdock.CodeNotFound},
		{"POST", "/files/directory", "file", "", innerdock.CodeInvalid},
		{"POST", "/files/directory", "file/x", "", innerdock.CodeInvalid},
	} {
		w := r.do(c.method, c.route, c.path, c.query, "body")
		var e innerdock.Error
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Code != c.code || w.Code != c.code.Status() {
			t.Errorf("%s %s %.20q%s: %d %s, want %s", c.method, c.route, c.path, c.query, w.Code, w.Body, c.code)
		}
	}
	if entries, _ := os.ReadDir(r.dir); len(entries) != 3 {
		t.Errorf("left: %v", entries)
	}
}

func FuzzInfo(f *testing.F) {
	for _, p := range []string{"", "/", "..", "a//b", "\x00", "/proc/self/fd/../exe", strings.Repeat("../", 100)} {
		f.Add(p)
	}
	dir := f.TempDir()
	tree := Tree{Dir: func() string { return dir }}
	f.Fuzz(func(t *testing.T, path string) {
		if info, err := tree.Info(path); err == nil && (info.Path == "" || !filepath.IsAbs(info.Path)) {
			t.Errorf("%q: %+v", path, info)
		}
		tree.List(path)
	})
}
