package worker

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/wire"
)

func newControl(t *testing.T) (*control, string) {
	t.Helper()
	dir := t.TempDir()
	c, err := listenControl(dir, slog.New(slog.DiscardHandler))
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
	session, err := yamux.Server(conn, wire.SessionConfig())
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

func get(t *testing.T, c *control) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	resp, err := newAgentClient(c).do(ctx, http.MethodGet, "/", nil, nil)
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
	c, socket := newControl(t)
	first := dialHome(t, socket, answer("first"))
	if got := get(t, c); got != "first" {
		t.Fatalf("got %q", got)
	}
	dialHome(t, socket, answer("second"))
	select {
	case <-first.CloseChan():
	case <-time.After(5 * time.Second):
		t.Fatal("the first connection was not closed")
	}
	if got := get(t, c); got != "second" {
		t.Fatalf("got %q", got)
	}
}

func TestARequestWaitsForAnAgentThatReDials(t *testing.T) {
	c, socket := newControl(t)
	got := make(chan string, 1)
	go func() { got <- get(t, c) }()
	dialHome(t, socket, answer("here"))
	if text := <-got; text != "here" {
		t.Fatalf("got %q", text)
	}
}

func TestWithoutAgentARequestEndsWithItsContext(t *testing.T) {
	c, _ := newControl(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.dial(ctx); innerdock.CodeOf(err) != innerdock.CodeUnavailable {
		t.Fatalf("got %v", err)
	}
	c.Close()
	if _, err := c.dial(t.Context()); innerdock.CodeOf(err) != innerdock.CodeSandboxTerminated {
		t.Fatalf("got %v", err)
	}
}

func TestRudePeersAreRefusedAndTheNextIsServed(t *testing.T) {
	c, socket := newControl(t)
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
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
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

func TestAnAgentsErrorsKeepTheirCodeAndAreCapped(t *testing.T) {
	c, socket := newControl(t)
	reply := `{"code":"command_not_found","message":"no such command"}`
	dialHome(t, socket, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(422)
		_, _ = io.WriteString(w, reply)
	})
	_, err := newAgentClient(c).do(t.Context(), http.MethodGet, "/", nil, nil)
	if innerdock.CodeOf(err) != innerdock.CodeCommandNotFound {
		t.Fatalf("got %v", err)
	}
	reply = strings.Repeat("<html>", maxReply)
	_, err = newAgentClient(c).do(t.Context(), http.MethodGet, "/", nil, nil)
	if innerdock.CodeOf(err) != innerdock.CodeUnavailable || len(err.Error()) > 200 {
		t.Fatalf("got %.300v", err)
	}
}
