package worker

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/wire"
)

// handshakeTimeout bounds the two lines that open a connection.
const handshakeTimeout = 5 * time.Second

// control is the host's end of one sandbox's agent: the socket that the agent
// dials and the session that it last opened. Whoever connects speaks for the
// sandbox and for nothing else.
type control struct {
	listener net.Listener
	log      *slog.Logger
	wg       sync.WaitGroup

	changed broadcast // of session and closed

	mu      sync.Mutex
	session *yamux.Session
	closed  bool
}

// listenControl makes the socket in dir, replacing one that an earlier server
// left, and serves it until Close.
func listenControl(dir string, log *slog.Logger) (*control, error) {
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
	c := &control{listener: listener, log: log}
	c.wg.Go(c.accept)
	return c, nil
}

// accept takes one connection after the other: a new one replaces the old, so
// nothing inside the sandbox can make the host hold more than one.
func (c *control) accept() {
	for {
		conn, err := c.listener.Accept()
		if err != nil {
			return
		}
		session, err := handshake(conn)
		if err != nil {
			_ = conn.Close()
			c.log.Warn("an agent's connection was refused", "error", err)
			continue
		}
		c.replace(session)
	}
}

func (c *control) replace(session *yamux.Session) {
	c.mu.Lock()
	old := c.session
	if c.closed {
		old, session = session, nil
	}
	c.session = session
	c.mu.Unlock()
	c.changed.fire()
	if old != nil {
		_ = old.Close()
	}
}

func handshake(conn net.Conn) (*yamux.Session, error) {
	if err := conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, err
	}
	line, err := wire.ReadLine(conn)
	if err != nil {
		return nil, err
	}
	var hello wire.Hello
	if err := json.Unmarshal(line, &hello); err != nil {
		return nil, err
	}
	welcome := wire.Welcome{Protocol: wire.Version}
	if hello.Protocol < wire.Version-1 || hello.Protocol > wire.Version {
		welcome.Error = "this server speaks another version of the protocol"
	}
	if err := json.NewEncoder(conn).Encode(welcome); err != nil {
		return nil, err
	}
	if welcome.Error != "" {
		return nil, errors.New(welcome.Error)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	return yamux.Client(conn, wire.SessionConfig())
}

// dial opens a stream to the agent. While no agent is connected it waits for
// one until ctx is done.
func (c *control) dial(ctx context.Context) (net.Conn, error) {
	for {
		changed := c.changed.next()
		c.mu.Lock()
		session, closed := c.session, c.closed
		c.mu.Unlock()
		if closed {
			return nil, innerdock.Errorf(innerdock.CodeSandboxTerminated, "the sandbox has ended")
		}
		if session != nil {
			if stream, err := session.Open(); err == nil {
				return stream, nil
			}
			c.forget(session)
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
func (c *control) forget(session *yamux.Session) {
	_ = session.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == session {
		c.session = nil
	}
}

// Close ends the session and waits for the socket's goroutine.
func (c *control) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	_ = c.listener.Close()
	c.replace(nil)
	c.wg.Wait()
}
