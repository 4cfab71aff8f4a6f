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
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/wire"
	"github.com/innerdock/innerdock/pkg/worker/broadcast"
)

const (
	// handshakeTimeout bounds the two lines that open a connection.
	handshakeTimeout = 5 * time.Second
	// partTimeout is how long an agent has to let go of its connection.
	partTimeout = 2 * time.Second
)

// Home is where the agent of one sandbox dials home. A new connection replaces
// the old one, so nothing inside the sandbox can make the host hold more.
type Home struct {
	dir string
	log *slog.Logger
	wg  sync.WaitGroup

	changed broadcast.Signal // of listener, session and closed
	quiet   atomic.Bool      // the agent cannot answer for now

	mu       sync.Mutex
	listener net.Listener // nil: it is shut
	session  *yamux.Session
	conn     net.Conn   // of session
	hello    wire.Hello // of session
	closed   bool
}

// Listen makes the socket in dir, replacing one that an earlier server left, and
// serves it until Close.
func Listen(dir string, log *slog.Logger) (*Home, error) {
	h := &Home{dir: dir, log: log}
	if err := h.Open(); err != nil {
		return nil, err
	}
	return h, nil
}

// Open serves the socket after Shut. After Close it does nothing.
func (h *Home) Open() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil
	}
	path := filepath.Join(h.dir, wire.SocketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return innerdock.Internal(err, "replacing the control socket")
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return innerdock.Internal(err, "listening on the control socket")
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = listener.Close()
		return innerdock.Internal(err, "protecting the control socket")
	}
	h.listener = listener
	h.changed.Fire()
	h.wg.Go(func() { h.accept(listener) })
	return nil
}

// Shut parts from the agent and lets nobody connect until Open. It returns when
// the agent has closed its end, or has had the time to: a connection that a
// checkpoint finds open is dead afterwards, which the agent is not told.
func (h *Home) Shut() {
	h.mu.Lock()
	listener, session, conn := h.listener, h.session, h.conn
	h.listener = nil
	h.mu.Unlock()
	if listener != nil {
		_ = listener.Close()
	}
	if end, ok := conn.(interface{ CloseWrite() error }); ok && session != nil && end.CloseWrite() == nil {
		late := time.NewTimer(partTimeout)
		defer late.Stop()
		select {
		case <-session.CloseChan():
		case <-late.C:
		}
	}
	h.Hangup()
}

// Opened returns when the home is not shut: it is open, or closed for good.
func (h *Home) Opened(ctx context.Context) error {
	for {
		changed := h.changed.Next()
		h.mu.Lock()
		shut := h.listener == nil && !h.closed
		h.mu.Unlock()
		if !shut {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (h *Home) accept(listener net.Listener) {
	refused, told := 0, time.Time{}
	for {
		conn, err := listener.Accept()
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
		h.replace(session, conn, hello)
	}
}

func (h *Home) replace(session *yamux.Session, conn net.Conn, hello wire.Hello) {
	h.mu.Lock()
	old := h.session
	if session != nil && (h.closed || h.listener == nil) { // too late
		old, session, conn = session, nil, nil
	}
	h.session, h.conn, h.hello = session, conn, hello
	if session != nil {
		h.wg.Go(func() { wire.KeepAlive(session, h.quiet.Load) })
	}
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
	session, err := wire.Client(conn)
	return session, hello, err
}

// SetQuiet says whether the agent can answer at all. The connection to one that
// cannot is kept.
func (h *Home) SetQuiet(quiet bool) { h.quiet.Store(quiet) }

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
func (h *Home) Hangup() { h.replace(nil, nil, wire.Hello{}) }

// Close ends the session and waits for the socket's goroutine.
func (h *Home) Close() {
	h.mu.Lock()
	h.closed = true
	listener := h.listener
	h.mu.Unlock()
	if listener != nil {
		_ = listener.Close()
	}
	h.Hangup()
	h.wg.Wait()
}
