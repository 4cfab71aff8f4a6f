// Package home is the host's end of an agent: the socket that the agent of one
// sandbox dials, and the session that it opens. Whoever connects speaks for that
// sandbox and for nothing else.
package home

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/wire"
	"github.com/innerdock/innerdock/pkg/worker/broadcast"
)

// handshakeTimeout bounds the two lines that open a connection.
const handshakeTimeout = 5 * time.Second

// Home is where the agent of one sandbox dials home. A new connection replaces
// the old one, so nothing inside the sandbox can make the host hold more.
type Home struct {
	listener net.Listener
	log      *slog.Logger
	wg       sync.WaitGroup

	changed broadcast.Signal // of session and closed

	mu      sync.Mutex
	session *yamux.Session
	hello   wire.Hello // of session
	closed  bool
}

// Listen makes the socket in dir, replacing one that an earlier server left, and
// serves it until Close.
func Listen(dir string, log *slog.Logger) (*Home, error) {
	path := filepath.Join(dir, wire.SocketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, innerdock.Internal(err, "replacing the control socket")
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, innerdock.Internal(err, "listening on the control socket")
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = listener.Close()
		return nil, innerdock.Internal(err, "protecting the control socket")
	}
	h := &Home{listener: listener, log: log}
	h.wg.Go(h.accept)
	return h, nil
}

func (h *Home) accept() {
	refused, told := 0, time.Time{}
	for {
		conn, err := h.listener.Accept()
		if err != nil {
			return
		}
		session, hello, err := handshake(conn)
		if err != nil {
			_ = conn.Close()
			// Whoever dials may do so all day: the log does not grow with it.
			if refused++; time.Since(told) > time.Minute {
				told = time.Now()
				h.log.Warn("an agent's connection was refused", "error", err, "refused", refused)
			}
			continue
		}
		h.replace(session, hello)
	}
}

func (h *Home) replace(session *yamux.Session, hello wire.Hello) {
	h.mu.Lock()
	old := h.session
	if h.closed && session != nil { // too late
		old, session = session, h.session
	}
	h.session, h.hello = session, hello
	h.mu.Unlock()
	h.changed.Fire()
	if old != nil {
		_ = old.Close()
	}
}

func handshake(conn net.Conn) (*yamux.Session, wire.Hello, error) {
	var hello wire.Hello
	if err := conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, hello, err
	}
	line, err := wire.ReadLine(conn)
	if err != nil {
		return nil, hello, err
	}
	if err := json.Unmarshal(line, &hello); err != nil {
		return nil, hello, err
	}
	welcome := wire.Welcome{Protocol: wire.Version}
	if hello.Protocol < wire.Version-1 || hello.Protocol > wire.Version {
		welcome.Error = "this server speaks another version of the protocol"
	}
	if err := json.NewEncoder(conn).Encode(welcome); err != nil {
		return nil, hello, err
	}
	if welcome.Error != "" {
		return nil, hello, errors.New(welcome.Error)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, hello, err
	}
	session, err := yamux.Client(conn, wire.SessionConfig())
	return session, hello, err
}

// Dial opens a stream to the agent. While no agent is connected it waits for
// one until ctx is done.
func (h *Home) Dial(ctx context.Context) (net.Conn, error) {
	for {
		changed := h.changed.Next()
		h.mu.Lock()
		session, closed := h.session, h.closed
		h.mu.Unlock()
		if closed {
			return nil, innerdock.Errorf(innerdock.CodeSandboxTerminated, "the sandbox has ended")
		}
		if session != nil {
			if stream, err := session.Open(); err == nil {
				return stream, nil
			}
			h.forget(session)
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, innerdock.Errorf(innerdock.CodeUnavailable,
				"the sandbox's agent is not connected; try again, or see `innerdock logs`")
		}
	}
}

// forget drops a session that no longer opens streams.
func (h *Home) forget(session *yamux.Session) {
	_ = session.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.session == session {
		h.session = nil
	}
}

// Client returns a client of the agent, whatever the URL's host. The caller
// closes its idle connections and caps what it reads: the agent is hostile.
func (h *Home) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return h.Dial(ctx) },
		DisableCompression:     true,
		MaxResponseHeaderBytes: 16 << 10,
		MaxIdleConnsPerHost:    8,
	}}
}

// Agent waits for an agent to connect and returns how it introduced itself.
func (h *Home) Agent(ctx context.Context) (wire.Hello, error) {
	for {
		changed := h.changed.Next()
		h.mu.Lock()
		session, hello := h.session, h.hello
		h.mu.Unlock()
		if session != nil {
			return hello, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return wire.Hello{}, context.Cause(ctx)
		}
	}
}

// Hangup ends the agent's connection; it dials again.
func (h *Home) Hangup() { h.replace(nil, wire.Hello{}) }

// Close ends the session and waits for the socket's goroutine.
func (h *Home) Close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	_ = h.listener.Close()
	h.Hangup()
	h.wg.Wait()
}
