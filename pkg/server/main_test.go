package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/server"
	"github.com/innerdock/innerdock/pkg/server/servertest"
	"github.com/innerdock/innerdock/test/freeport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a server that listens on a Unix socket and on a port of loopback.
type rig struct {
	t       *testing.T
	backend *servertest.Backend
	images  *servertest.Images
	keys    *servertest.Keys
	log     *safeBuffer
	client  *innerdock.Client // through the socket
	socket  string
	tcp     string // host:port
	stop    func() error
	hostile *hostileBackend // instead of backend's agents
}

// listenersOf are the socket and the port.
func listenersOf(r *rig) server.Listeners {
	return server.Listeners{Socket: r.socket, TCP: []string{r.tcp}}
}

// hostileAgents are a backend's sandboxes with other agents.
type hostileAgents struct {
	*servertest.Backend
	*hostileBackend
}

func (h hostileAgents) DialAgent(ctx context.Context, tenant, id string) (net.Conn, error) {
	return h.hostileBackend.DialAgent(ctx, tenant, id)
}

func (h hostileAgents) Sandbox(context.Context, string, string) (innerdock.Sandbox, error) {
	return innerdock.Sandbox{ID: "x", State: innerdock.StateRunning}, nil
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{
		t: t, backend: servertest.NewBackend(t), images: servertest.NewImages(), keys: &servertest.Keys{},
		log: &safeBuffer{}, socket: filepath.Join(t.TempDir(), "s", "innerdock.sock"), tcp: freeport.Address(t),
	}
	r.serve(listenersOf(r))
	r.client = r.connect("unix://"+r.socket, "")
	return r
}

func (r *rig) server() *server.Server {
	var backend server.Backend = r.backend
	if r.hostile != nil {
		backend = hostileAgents{r.backend, r.hostile}
	}
	return server.New(server.Config{
		Backend: backend, Snapshots: r.backend, Images: r.images, Builders: r.images, Keys: r.keys, Version: "test", Runsc: "r1", Hosts: []string{"dock.example"},
		Log: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
}

// serve listens until stop or the end of the test.
func (r *rig) serve(where server.Listeners) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	s := r.server()
	go func() { done <- s.Serve(ctx, context.Background(), where, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		cancel()
		r.t.Fatal(err)
	}
	stop := sync.OnceValue(func() error { cancel(); return <-done })
	r.stop = stop
	r.t.Cleanup(func() { _ = stop() })
}

func (r *rig) connect(host, key string) *innerdock.Client {
	r.t.Helper()
	c, err := innerdock.New(host, key)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(c.Close)
	return c
}

// key makes an API key and a client over TCP that has it.
func (r *rig) key(tenant string) (string, *innerdock.Client) {
	r.t.Helper()
	key, _, err := r.keys.CreateKey(r.t.Context(), "", tenant)
	if err != nil {
		r.t.Fatal(err)
	}
	return key, r.connect("http://"+r.tcp, key)
}

func (r *rig) create(spec innerdock.SandboxSpec) innerdock.Sandbox {
	r.t.Helper()
	if spec.Image == "" {
		spec.Image = "sha256:0"
	}
	sandbox, err := r.client.CreateSandbox(r.t.Context(), spec)
	if err != nil {
		r.t.Fatal(err)
	}
	return sandbox
}

// request sends one over TCP with a key and returns the reply and its body.
func (r *rig) request(method, path, key string, body io.Reader, header ...string) (*http.Response, string) {
	r.t.Helper()
	request, err := http.NewRequestWithContext(r.t.Context(), method, "http://"+r.tcp+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	if key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			request.Host = header[i+1]
		}
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return response, string(content)
}

// wantError checks that a reply is exactly an innerdock.Error of this code.
func wantError(t *testing.T, response *http.Response, body string, code innerdock.Code, words ...string) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(body))
	decoder.DisallowUnknownFields()
	var failure innerdock.Error
	if err := decoder.Decode(&failure); err != nil {
		t.Fatalf("not an Error: %v: %s %q", err, response.Status, body)
	}
	if failure.Code != code || response.StatusCode != code.Status() {
		t.Fatalf("got %s with status %d (%s), want %s", failure.Code, response.StatusCode, failure.Message, code)
	}
	if id := response.Header.Get(innerdock.RequestIDHeader); id == "" || failure.RequestID != id {
		t.Errorf("request_id is %q, the header says %q", failure.RequestID, id)
	}
	if got := response.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type of an error is %q", got)
	}
	for _, word := range words {
		if !strings.Contains(failure.Message, word) {
			t.Errorf("message %q does not say %q", failure.Message, word)
		}
	}
}

func wantCode(t *testing.T, err error, code innerdock.Code) {
	t.Helper()
	if innerdock.CodeOf(err) != code {
		t.Fatalf("got %v (%s), want %s", err, innerdock.CodeOf(err), code)
	}
}

// eventually waits for what has no event.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !is() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatalf("never happened: %s", what)
		}
	}
}
