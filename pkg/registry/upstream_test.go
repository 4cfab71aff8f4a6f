package registry

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/innerdock/innerdock/pkg/registry/registrytest"
)

// hub is a real registry that can be made to fail, and counts what is
// asked of it.
type hub struct {
	t      *testing.T
	server *httptest.Server

	registry http.Handler
	requests atomic.Int64 // below /v2/NAME

	mu     sync.Mutex
	counts map[string]int // by method and kind: "GET blobs"
	fault  fault

	linked    map[string]bool // blobs, by REPOSITORY@DIGEST
	private   map[string]bool // repositories, once the hub is guarded
	presented []string        // Authorization headers
}

// fault changes an answer; false lets the registry answer itself.
type fault func(w http.ResponseWriter, r *http.Request, answer func() *httptest.ResponseRecorder) bool

func newHub(t *testing.T) *hub {
	h := &hub{t: t, counts: map[string]int{}, linked: map[string]bool{}}
	registry := registrytest.New(t)
	h.registry = registry
	h.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		if parts := strings.Split(r.URL.Path, "/"); len(parts) > 3 {
			h.requests.Add(1)
			h.counts[r.Method+" "+parts[len(parts)-2]]++
		}
		fault := h.fault
		h.mu.Unlock()
		answer := func() *httptest.ResponseRecorder {
			recorder := httptest.NewRecorder()
			registry.ServeHTTP(recorder, r)
			return recorder
		}
		if h.admit(w, r) || (fault != nil && fault(w, r, answer)) {
			return
		}
		registry.ServeHTTP(w, r)
	}))
	t.Cleanup(h.server.Close)
	return h
}

func (h *hub) host() string { return strings.TrimPrefix(h.server.URL, "http://") }

func (h *hub) count(what string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts[what]
}

func (h *hub) fail(f fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fault = f
}

// push stores a random image of one layer of size bytes, and returns it.
func (h *hub) push(repository, tag string, size int64) v1.Image {
	h.t.Helper()
	img, err := random.Image(size, 1)
	must(h.t, err)
	h.write(repository, tag, img)
	return img
}

func (h *hub) write(repository, tag string, img v1.Image) {
	h.t.Helper()
	ref, err := name.NewTag(h.host() + "/" + repository + ":" + tag)
	must(h.t, err)
	must(h.t, remote.Write(ref, img, remote.WithAuth(&authn.Basic{Username: "alice", Password: "her secret"})))
}

func (h *hub) writeIndex(repository, tag string, index v1.ImageIndex) {
	h.t.Helper()
	ref, err := name.NewTag(h.host() + "/" + repository + ":" + tag)
	must(h.t, err)
	must(h.t, remote.WriteIndex(ref, index))
}

// storage is another host, where a hub keeps its blobs.
type storage struct {
	server     *httptest.Server
	requests   atomic.Int64
	authorized atomic.Bool
}

func newStorage(t *testing.T, h *hub) *storage {
	s := &storage{}
	s.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		if r.Header.Get("Authorization") != "" {
			s.authorized.Store(true)
		}
		h.registry.ServeHTTP(w, r)
	}))
	t.Cleanup(s.server.Close)
	return s
}

func (s *storage) redirect(w http.ResponseWriter, r *http.Request, _ func() *httptest.ResponseRecorder) bool {
	http.Redirect(w, r, s.server.URL+r.URL.Path, http.StatusTemporaryRedirect)
	return true
}

// blobsOnly limits a fault to blobs larger than an image's configuration.
func blobsOnly(f fault) fault {
	return func(w http.ResponseWriter, r *http.Request, answer func() *httptest.ResponseRecorder) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") || r.Method != http.MethodGet {
			return false
		}
		real := answer()
		if real.Body.Len() < 4096 {
			return false
		}
		return f(w, r, func() *httptest.ResponseRecorder { return real })
	}
}

// cut sends half of an answer and ends the connection.
func cut(w http.ResponseWriter, _ *http.Request, answer func() *httptest.ResponseRecorder) bool {
	body := answer().Body.Bytes()
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body[:len(body)/2])
	panic(http.ErrAbortHandler)
}

// corrupt changes one byte in the middle.
func corrupt(w http.ResponseWriter, _ *http.Request, answer func() *httptest.ResponseRecorder) bool {
	for key, values := range answer().Header() {
		w.Header()[key] = values
	}
	body := append([]byte{}, answer().Body.Bytes()...)
	body[len(body)/2] ^= 1
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body)
	return true
}

// chunked sends the right body without saying how long it is.
func chunked(w http.ResponseWriter, _ *http.Request, answer func() *httptest.ResponseRecorder) bool {
	body := answer().Body.Bytes()
	_, _ = w.Write(body[:len(body)/2])
	w.(http.Flusher).Flush()
	_, _ = w.Write(body[len(body)/2:])
	return true
}

// broken answers 500.
func broken(w http.ResponseWriter, _ *http.Request, _ func() *httptest.ResponseRecorder) bool {
	w.WriteHeader(http.StatusInternalServerError)
	return true
}

// slow sends half, waits for the gate to open, and sends the rest.
func slow(gate <-chan struct{}) fault {
	return func(w http.ResponseWriter, r *http.Request, answer func() *httptest.ResponseRecorder) bool {
		body := answer().Body.Bytes()
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body[:len(body)/2])
		w.(http.Flusher).Flush()
		select {
		case <-gate:
		case <-r.Context().Done():
			return true
		}
		_, _ = w.Write(body[len(body)/2:])
		return true
	}
}

// mirror is a cache and the address that a daemon would ask.
type mirror struct {
	t     *testing.T
	cache *Cache
	host  string
	dir   string
	stop  func()
}

func newMirror(t *testing.T, cfg Config) *mirror {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	cache, err := Open(cfg)
	must(t, err)
	server := httptest.NewServer(cache)
	var once sync.Once
	m := &mirror{t: t, cache: cache, host: strings.TrimPrefix(server.URL, "http://"), dir: cfg.Dir}
	m.stop = func() {
		once.Do(func() {
			server.CloseClientConnections()
			server.Close()
			must(t, cache.Close())
		})
	}
	t.Cleanup(m.stop)
	return m
}

// pull pulls an image as a client does, every byte and digest checked.
func (m *mirror) pull(ref string) (v1.Image, error) {
	m.t.Helper()
	tag, err := name.ParseReference(m.host + "/" + ref)
	must(m.t, err)
	transport := &http.Transport{DisableKeepAlives: true}
	img, err := remote.Image(tag, remote.WithTransport(transport), remote.WithRetryStatusCodes(),
		remote.WithRetryPredicate(func(error) bool { return false }))
	if err != nil {
		return nil, err
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	if _, err := img.RawConfigFile(); err != nil {
		return nil, err
	}
	for _, layer := range layers {
		content, err := layer.Compressed()
		if err != nil {
			return nil, err
		}
		_, err = io.Copy(io.Discard, content)
		_ = content.Close()
		if err != nil {
			return nil, err
		}
	}
	return img, nil
}

func (m *mirror) mustPull(ref string, want v1.Image) {
	m.t.Helper()
	got, err := m.pull(ref)
	must(m.t, err)
	if a, b := mustDigest(m.t, got), mustDigest(m.t, want); a != b {
		m.t.Fatalf("pulled %s, want %s", a, b)
	}
}

// get asks for a path, and returns status and body.
func (m *mirror) get(method, path string, header http.Header) (*http.Response, string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+m.host+path, nil)
	must(m.t, err)
	if header != nil {
		request.Header = header
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	must(m.t, err)
	defer func() { _ = response.Body.Close() }()
	body, _ := io.ReadAll(response.Body)
	return response, string(body)
}

// passUnreachable lets the time pass in which a failure to reach upstream is remembered.
func (m *mirror) passUnreachable() {
	for _, u := range m.cache.upstream {
		u.mu.Lock()
		u.retry = time.Now()
		u.mu.Unlock()
	}
}

func mustDigest(t *testing.T, img v1.Image) string {
	t.Helper()
	digest, err := img.Digest()
	must(t, err)
	return digest.String()
}

func layerOf(t *testing.T, img v1.Image) (v1.Layer, string) {
	t.Helper()
	layers, err := img.Layers()
	must(t, err)
	digest, err := layers[0].Digest()
	must(t, err)
	return layers[0], digest.String()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// closedPort is an address on which nothing answers: connections are refused.
func closedPort(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = listener.Close() }()
	return "http://" + listener.Addr().String()
}
