package home

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/yamux"
	"go.uber.org/goleak"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/wire"
)

func newHome(t *testing.T) (*Home, string) {
	t.Helper()
	dir := t.TempDir()
	c, err := Listen(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, filepath.Join(dir, wire.SocketName)
}

// dialHome connects like an agent and serves handler until the test ends.
func dialHome(t *testing.T, socket string, handler http.HandlerFunc) *yamux.Session {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewEncoder(conn).Encode(wire.Hello{Protocol: wire.Version}); err != nil {
		t.Fatal(err)
	}
	welcome := make([]byte, 0, 100)
	for one := make([]byte, 1); !strings.HasSuffix(string(welcome), "\n"); welcome = append(welcome, one[0]) {
		if _, err := io.ReadFull(conn, one); err != nil {
			t.Fatal(err)
		}
	}
	session, err := wire.Server(conn)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Second}
	served := make(chan struct{})
	go func() { _ = server.Serve(session); close(served) }()
	t.Cleanup(func() { _ = server.Close(); _ = session.Close(); <-served })
	return session
}

func answer(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
}

func get(t *testing.T, h *Home) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := h.Client()
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestTheLastAgentToConnectIsTheOne(t *testing.T) {
	c, socket := newHome(t)
	first := dialHome(t, socket, answer("first"))
	if got := get(t, c); got != "first" {
		t.Fatalf("got %q", got)
	}
	dialHome(t, socket, answer("second"))
	select {
	case <-first.CloseChan():
	case <-time.After(time.Minute):
		t.Fatal("the first connection was not closed")
	}
	if got := get(t, c); got != "second" {
		t.Fatalf("got %q", got)
	}
}

func TestARequestWaitsForAnAgentThatReDials(t *testing.T) {
	c, socket := newHome(t)
	got := make(chan string, 1)
	go func() { got <- get(t, c) }()
	dialHome(t, socket, answer("here"))
	if text := <-got; text != "here" {
		t.Fatalf("got %q", text)
	}
}

func TestWithoutAgentARequestEndsWithItsContext(t *testing.T) {
	c, _ := newHome(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Dial(ctx); innerdock.CodeOf(err) != innerdock.CodeUnavailable {
		t.Fatalf("got %v", err)
	}
	c.Close()
	if _, err := c.Dial(t.Context()); innerdock.CodeOf(err) != innerdock.CodeSandboxTerminated {
		t.Fatalf("got %v", err)
	}
}

func TestRudePeersAreRefusedAndTheNextIsServed(t *testing.T) {
	c, socket := newHome(t)
	for name, hello := range map[string]string{
		"not json":        "GET / HTTP/1.1\r\n",
		"an endless line": strings.Repeat("x", 2*wire.MaxLine),
		"the future":      `{"protocol": 99}` + "\n",
		"nothing":         "",
	} {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, hello)
		if err := conn.(*net.UnixConn).CloseWrite(); err != nil && hello == "" {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		if reply, err := io.ReadAll(conn); errors.Is(err, context.DeadlineExceeded) || strings.Contains(string(reply), "\x00\x00") {
			t.Errorf("%s: got %q, %v", name, reply, err)
		}
		_ = conn.Close()
	}
	dialHome(t, socket, answer("polite"))
	if got := get(t, c); got != "polite" {
		t.Fatalf("got %q", got)
	}
}

func TestHangupAndAgent(t *testing.T) {
	h, socket := newHome(t)
	session := dialHome(t, socket, answer("here"))
	if hello, err := h.Agent(t.Context()); err != nil || hello.Protocol != wire.Version {
		t.Fatalf("%+v, %v", hello, err)
	}
	h.Hangup()
	<-session.CloseChan()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if hello, err := h.Agent(ctx); err == nil {
		t.Fatalf("after the end there is still %+v", hello)
	}
}

// A home that is shut has parted from its agent, and takes none until it is open again.
func TestShutUntilOpen(t *testing.T) {
	h, socket := newHome(t)
	session := dialHome(t, socket, answer("here"))
	if got := get(t, h); got != "here" {
		t.Fatalf("got %q", got)
	}
	h.Shut()
	if !session.IsClosed() {
		t.Error("the agent has not been parted from")
	}
	if conn, err := net.Dial("unix", socket); err == nil {
		_ = conn.Close()
		t.Error("an agent could connect")
	}
	given, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Opened(given); !errors.Is(err, context.Canceled) {
		t.Errorf("a shut home is open: %v", err)
	}
	opened := make(chan error, 1)
	go func() { opened <- h.Opened(t.Context()) }()
	if err := h.Open(); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Error(err)
	}
	dialHome(t, socket, answer("back"))
	if got := get(t, h); got != "back" {
		t.Errorf("got %q", got)
	}
	h.Shut()
	h.Close()
	if err := h.Open(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(socket); err == nil {
		t.Error("a closed home has a socket")
	}
}

func TestCloseEndsTheSession(t *testing.T) {
	h, socket := newHome(t)
	session := dialHome(t, socket, answer("here"))
	if got := get(t, h); got != "here" {
		t.Fatalf("got %q", got)
	}
	h.Close()
	select {
	case <-session.CloseChan():
	case <-time.After(time.Minute):
		t.Fatal("the agent's connection outlives its home")
	}
}

// Who connects and is refused, again and again, does not fill the log.
func TestRefusalsDoNotFillTheLog(t *testing.T) {
	var log countingWriter
	dir := t.TempDir()
	h, err := Listen(dir, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		conn, err := net.Dial("unix", filepath.Join(dir, wire.SocketName))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "rubbish\n")
		_, _ = io.ReadAll(conn)
		_ = conn.Close()
	}
	h.Close()
	if log.lines != 1 {
		t.Errorf("100 refusals made %d lines", log.lines)
	}
}

type countingWriter struct{ lines int }

func (w *countingWriter) Write(p []byte) (int, error) { w.lines++; return len(p), nil }

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
