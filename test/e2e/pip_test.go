package e2e

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/worker/pipcache"
)

// wheels is an index of Python packages that counts how often each was fetched.
type wheels struct {
	address string // host:port
	files   map[string][]byte

	mu      sync.Mutex
	fetched map[string]int
}

// newWheels is an index on the host's own address, with packages of 1 MiB.
func newWheels(t *testing.T, names ...string) *wheels {
	t.Helper()
	w := &wheels{files: map[string][]byte{}, fetched: map[string]int{}}
	for _, name := range names {
		w.files[name] = wheel(t, name)
	}
	listener, err := net.Listen("tcp4", hostAddresses(t)[0]+":0")
	if err != nil {
		t.Fatal(err)
	}
	w.address = listener.Addr().String()
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: w, ReadHeaderTimeout: time.Minute}}
	server.Start()
	t.Cleanup(server.Close)
	return w
}

// wheel is a package of one module.
func wheel(t *testing.T, name string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	info := name + "-1.0.dist-info/"
	for path, content := range map[string]string{
		name + ".py":      "word = '" + name + "'\n#" + strings.Repeat(name, 1<<20/len(name)) + "\n",
		info + "METADATA": "Metadata-Version: 2.1\nName: " + name + "\nVersion: 1.0\n",
		info + "WHEEL":    "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		info + "RECORD":   name + ".py,,\n" + info + "METADATA,,\n" + info + "WHEEL,,\n" + info + "RECORD,,\n",
	} {
		f, err := z.CreateHeader(&zip.FileHeader{Name: path, Method: zip.Store})
		if err == nil {
			_, err = f.Write([]byte(content))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func (w *wheels) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	name := strings.Trim(strings.TrimPrefix(r.URL.Path, "/simple"), "/")
	if content, ok := w.files[name]; ok {
		rw.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprintf(rw, "<a href=\"/files/%[1]s-1.0-py3-none-any.whl#sha256=%[2]x\">%[1]s-1.0-py3-none-any.whl</a>\n", name, sha256.Sum256(content))
		return
	}
	name, _, _ = strings.Cut(strings.TrimPrefix(r.URL.Path, "/files/"), "-")
	content, ok := w.files[name]
	if !ok {
		http.NotFound(rw, r)
		return
	}
	w.mu.Lock()
	w.fetched[name]++
	w.mu.Unlock()
	rw.Header().Set("Cache-Control", "max-age=365000000, immutable, public")
	_, _ = rw.Write(content)
}

// take returns what was fetched since the last time.
func (w *wheels) take() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	fetched := w.fetched
	w.fetched = map[string]int{}
	return fetched
}

// install is a step that installs packages of the index.
func (w *wheels) install(names ...string) innerdock.ImageStep {
	host, _, _ := strings.Cut(w.address, ":")
	return innerdock.ImageStep{PythonPackages: append([]string{"--index-url http://" + w.address + "/simple", "--trusted-host " + host}, names...)}
}

// A definition with one package more fetches that one alone: the others come from
// what pip has kept for the tenant, also after the server was killed. Another tenant
// fetches all, what is kept is no part of the image, and is removed with the builder.
func TestPipKeepsWhatItFetched(t *testing.T) {
	t.Parallel()
	index := newWheels(t, "first", "second", "third")
	host, _, _ := strings.Cut(index.address, ":")
	s := builds(t, "--allow", host+"/32")
	build := func(c *innerdock.Client, want string, steps ...innerdock.ImageStep) innerdock.Image {
		t.Helper()
		var log buildLog
		def := innerdock.ImageDefinition{PythonVersion: "python3.11", Steps: steps, Env: map[string]string{"RUN": s.dir}}
		image, err := c.BuildImage(t.Context(), def, log.add)
		if err != nil {
			t.Fatalf("%v\n%s", err, log.String())
		}
		if got := fmt.Sprint(index.take()); got != "map["+want+"]" {
			t.Errorf("%v fetched %s, not %s\n%s", steps, got, want, log.String())
		}
		t.Cleanup(func() {
			if err := s.client.RemoveImage(context.WithoutCancel(t.Context()), image.ID); err != nil {
				t.Error(err)
			}
		})
		return image
	}
	build(s.client, "first:1", index.install("first"))
	image := build(s.client, "second:1", index.install("first", "second"))
	if err := s.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := s.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	build(s.client, "", index.install("second"), innerdock.ImageStep{Command: "echo between"}, index.install("first"))

	other := s.tenant(t, "other")
	theirs := build(other, "first:1 second:1", index.install("first", "second"))
	if theirs.ID == image.ID {
		t.Error("what one tenant's pip has kept is in another one's image")
	}

	sandbox, err := s.client.CreateSandbox(t.Context(), innerdock.SandboxSpec{Image: image.ID})
	if err != nil {
		t.Fatal(err)
	}
	const look = `python3 -c 'import first, second; print(first.word, second.word)'; ls -A /tmp /run/innerdock; ls -A /root/.cache || true`
	if got := s.sh(t, sandbox.ID, look); got != "first second\n/run/innerdock:\nagent.sock\n\n/tmp:\n" {
		t.Errorf("in the image there is %q", got)
	}
	if _, err := s.client.Terminate(t.Context(), sandbox.ID); err != nil {
		t.Fatal(err)
	}

	if err := s.client.EndBuilder(t.Context()); err != nil {
		t.Fatal(err)
	}
	build(s.client, "first:1 third:1", index.install("first", "third"))
	build(other, "third:1", index.install("first", "third"))
}

// A step that writes into pip's cache what is not pip's neither fills the server's
// disk nor puts anything on it but files of pip's names, and the next build works.
func TestHostileStepsInPipsCache(t *testing.T) {
	t.Parallel()
	index := newWheels(t, "first", "second")
	host, _, _ := strings.Cut(index.address, ":")
	const room = 4 << 20
	s := builds(t, "--allow", host+"/32", "--pip-cache", "4Mi")
	const hostile = `cd /tmp/.innerdock-pip && mkdir -p http wheels/a selfcheck "$(printf 'http/new\nline')" ../up
mkfifo http/fifo; ln -s /etc/shadow http/link; ln -s /proc/kmsg wheels/a/kmsg; ln -s ../../.. http/dir
for name in 'http/a b' 'http/a,b' http/... http/-rf selfcheck/x http/ü "$(printf 'http/new\nline/x')" ../up/x; do echo x > "$name"; done
deep=http; for i in $(seq 200); do deep=$deep/d; mkdir $deep; done; echo x > $deep/x
for i in $(seq 7); do head -c 1000000 /dev/urandom > http/large$i; done; head -c 5000000 /dev/zero > http/larger`
	for _, steps := range [][]innerdock.ImageStep{
		{index.install("first"), {Command: hostile}},
		{index.install("first", "second")},
	} {
		var log buildLog
		image, err := s.client.BuildImage(t.Context(), innerdock.ImageDefinition{PythonVersion: "python3.11", Steps: steps, Env: map[string]string{"RUN": s.dir}}, log.add)
		if err != nil {
			t.Fatalf("%v\n%s", err, log.String())
		}
		if err := s.client.RemoveImage(t.Context(), image.ID); err != nil {
			t.Error(err)
		}
		var size int64
		large := 0
		err = filepath.WalkDir(filepath.Join(s.data(), "pip"), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			if !info.Mode().IsRegular() || !pipcache.Path(strings.ReplaceAll(d.Name(), ",", "/")) {
				t.Errorf("the server has %s %q", info.Mode(), path)
			}
			if strings.HasPrefix(d.Name(), "http,large") {
				large++
			}
			size += info.Size()
			return nil
		})
		if err != nil || size > room || large == 0 {
			t.Errorf("it has %d bytes in pip's cache, %d files of the step, %v", size, large, err)
		}
	}
}
