package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image"
	"github.com/innerdock/innerdock/pkg/image/imagetest"
	"github.com/innerdock/innerdock/pkg/image/unpack"
	"github.com/innerdock/innerdock/pkg/registry/registrytest"
)

// files maps paths to contents; a path that ends in "/" is a directory.
type files map[string]string

// tarOf is a layer's archive.
func tarOf(t testing.TB, content files) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, path := range sorted(content) {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o644, Size: int64(len(content[path]))}
		if strings.HasSuffix(path, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, content[path]); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// filesOf is what an archive holds.
func filesOf(t testing.TB, archive []byte) files {
	t.Helper()
	content := files{}
	tr := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return content
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		content[h.Name] = string(data)
	}
}

// imageOf is an image for this machine with a layer for each of contents.
func imageOf(t testing.TB, config v1.Config, contents ...files) v1.Image {
	t.Helper()
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH, Config: config, RootFS: v1.RootFS{Type: "layers"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range contents {
		img, err = mutate.AppendLayers(img, static.NewLayer(tarOf(t, c), types.OCIUncompressedLayer))
		if err != nil {
			t.Fatal(err)
		}
	}
	return img
}

// hub is a registry in this process, over HTTP. It answers as Docker Hub too,
// to stores that newStore made.
type hub struct {
	t      testing.TB
	server *httptest.Server

	registry http.Handler // without the hook

	mu    sync.Mutex
	hook  func(http.ResponseWriter, *http.Request) bool // true: it has answered
	calls int

	username, password string // see protect
}

func newHub(t testing.TB) *hub {
	h := &hub{t: t}
	h.registry = registrytest.New(t)
	h.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.calls++
		hook := h.hook
		h.mu.Unlock()
		if hook == nil || !hook(w, r) {
			h.registry.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(h.server.Close)
	return h
}

func (h *hub) host() string { return strings.TrimPrefix(h.server.URL, "http://") }

// intercept makes f answer requests first.
func (h *hub) intercept(f func(http.ResponseWriter, *http.Request) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hook = f
}

// count counts requests whose path ends so, from now on.
func (h *hub) count(end string) (n func() int) {
	var count atomic.Int64
	h.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, end) {
			count.Add(1)
		}
		return false
	})
	return func() int { return int(count.Load()) }
}

// protect sets the account that demand wants.
func (h *hub) protect(username, password string) { h.username, h.password = username, password }

// demand refuses requests without the account, as a hook.
func (h *hub) demand(w http.ResponseWriter, r *http.Request) bool {
	username, password, _ := r.BasicAuth()
	if username == h.username && password == h.password {
		return false
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
	w.WriteHeader(http.StatusUnauthorized)
	return true
}

func (h *hub) callCount() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.calls
}

// push stores an image (or an index) and returns its reference.
func (h *hub) push(repo string, img v1.Image) string {
	h.t.Helper()
	ref, err := name.ParseReference(h.host() + "/" + repo)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		h.t.Fatal(err)
	}
	return ref.Name()
}

// RoundTrip leads Docker Hub's name to the hub.
func (h *hub) RoundTrip(req *http.Request) (*http.Response, error) {
	if strings.HasSuffix(req.URL.Host, "docker.io") {
		req = req.Clone(req.Context())
		to, err := url.Parse(h.server.URL)
		if err != nil {
			return nil, err
		}
		req.URL.Scheme, req.URL.Host = to.Scheme, to.Host
	}
	return http.DefaultTransport.RoundTrip(req)
}

func newStore(t testing.TB, cfg image.Config) *image.Store {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: run it with sudo")
	}
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.Transport == nil {
		cfg.Transport = imagetest.Offline{}
	}
	if cfg.Runner == nil {
		cfg.Runner = &imagetest.LocalRunner{Dir: t.TempDir()}
	}
	store, err := image.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func build(t testing.TB, s *image.Store, def innerdock.ImageDefinition) innerdock.Image {
	t.Helper()
	img, err := s.Build(t.Context(), def, logEvents(t))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func logEvents(t testing.TB) func(string, innerdock.BuildEvent) {
	return func(event string, e innerdock.BuildEvent) { t.Logf("%s: %s: %s", event, e.Step, e.Message) }
}

// wantCode fails the test unless err has the code and its message all the words.
func wantCode(t testing.TB, err error, code innerdock.Code, words ...string) {
	t.Helper()
	if innerdock.CodeOf(err) != code {
		t.Fatalf("the error is %q: %v; want %q", innerdock.CodeOf(err), err, code)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

// wantFiles fails the test unless the image's root has exactly these files.
func wantFiles(t *testing.T, s *image.Store, id string, want files) {
	t.Helper()
	got := files{}
	tree := imagetest.Extract(t, s.Root(id))
	err := filepath.WalkDir(tree, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		got[strings.TrimPrefix(path, tree+"/")] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Errorf("the root holds %q, want %q", got, want)
	}
	for path, content := range want {
		if got[path] != content {
			t.Errorf("%s holds %q, want %q", path, got[path], content)
		}
	}
}

// wantEmpty fails the test if a build left something in the store's tmp or locks.
func wantEmpty(t testing.TB, dir string) {
	t.Helper()
	for _, sub := range []string{"tmp", "locks"} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) > 0 {
			t.Errorf("%s holds %v", sub, entries)
		}
	}
}

func sorted(m files) []string { return slices.Sorted(maps.Keys(m)) }

func commands(lines ...string) []innerdock.ImageStep {
	var steps []innerdock.ImageStep
	for _, l := range lines {
		steps = append(steps, innerdock.ImageStep{Command: l})
	}
	return steps
}

// countingRunner counts the calls of a runner, and notes the steps' names.
type countingRunner struct {
	image.Runner
	mu    sync.Mutex
	calls int
	steps []string
}

func (r *countingRunner) RunSteps(ctx context.Context, tenant, root string, env map[string]string, steps []image.Step, output func(int, string), layer io.Writer) error {
	r.mu.Lock()
	r.calls++
	for _, step := range steps {
		r.steps = append(r.steps, step.Name)
	}
	r.mu.Unlock()
	return r.Runner.RunSteps(ctx, tenant, root, env, steps, output, layer)
}

// zstdLayer is a layer that is compressed with zstd.
type zstdLayer struct {
	compressed []byte
	plain      []byte
}

func (l zstdLayer) Digest() (v1.Hash, error) {
	h, _, err := v1.SHA256(bytes.NewReader(l.compressed))
	return h, err
}

func (l zstdLayer) DiffID() (v1.Hash, error) {
	h, _, err := v1.SHA256(bytes.NewReader(l.plain))
	return h, err
}

func (l zstdLayer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.compressed)), nil
}

func (l zstdLayer) Uncompressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.plain)), nil
}

func (l zstdLayer) Size() (int64, error)                { return int64(len(l.compressed)), nil }
func (l zstdLayer) MediaType() (types.MediaType, error) { return types.OCILayerZStd, nil }

func smallLimits() unpack.Limits {
	return unpack.Limits{Bytes: 8 << 20, Entries: 1000, Depth: 32, Path: 1024, Memory: 1 << 20}
}
