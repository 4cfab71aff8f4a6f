// Package agenttest is the server's end of an agent's connection, for tests.
package agenttest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"

	"github.com/hashicorp/yamux"

	"github.com/innerdock/innerdock/pkg/agent/wire"
)

// Home is what an agent dials.
type Home struct {
	listener net.Listener
	serving  sync.WaitGroup

	mu      sync.Mutex
	session *yamux.Session
	hello   wire.Hello
	arrived chan struct{} // closed once a session is there
}

// Listen waits for agents at path. A newer connection replaces the older.
func Listen(path string) (*Home, error) {
	os.Remove(path)
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	h := &Home{listener: l, arrived: make(chan struct{})}
	h.serving.Go(h.accept)
	return h, nil
}

func (h *Home) accept() {
	for {
		conn, err := h.listener.Accept()
		if err != nil {
			return
		}
		if err := h.greet(conn); err != nil {
			conn.Close()
		}
	}
}

func (h *Home) greet(conn net.Conn) error {
	line, err := wire.ReadLine(conn)
	if err != nil {
		return err
	}
	var hello wire.Hello
	if err := json.Unmarshal(line, &hello); err != nil {
		return err
	}
	if err := json.NewEncoder(conn).Encode(wire.Welcome{Protocol: wire.Version}); err != nil {
		return err
	}
	session, err := yamux.Client(conn, wire.SessionConfig())
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.session != nil {
		h.session.Close()
	} else {
		close(h.arrived)
	}
	h.session, h.hello = session, hello
	return nil
}

// Wait waits for an agent and returns how it introduced itself.
func (h *Home) Wait(ctx context.Context) (wire.Hello, error) {
	h.mu.Lock()
	arrived := h.arrived
	h.mu.Unlock()
	select {
	case <-arrived:
	case <-ctx.Done():
		return wire.Hello{}, ctx.Err()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hello, nil
}

// Dial opens a stream to the agent.
func (h *Home) Dial() (net.Conn, error) {
	h.mu.Lock()
	session := h.session
	h.mu.Unlock()
	if session == nil {
		return nil, errors.New("no agent has dialled")
	}
	return session.Open()
}

// Client returns a client of the agent, whatever the URL's host.
func (h *Home) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableCompression:  true,
		MaxIdleConnsPerHost: 8,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return h.Dial()
		},
	}}
}

// Hangup ends the agent's connection; it will dial again.
func (h *Home) Hangup() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.session != nil {
		h.session.Close()
		h.session, h.arrived = nil, make(chan struct{})
	}
}

// Close stops listening and hangs up.
func (h *Home) Close() {
	h.listener.Close()
	h.serving.Wait()
	h.Hangup()
}

// Lines calls each for every line of r.
func Lines(r io.Reader, each func([]byte)) error {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, wire.MaxLine)
	for scanner.Scan() {
		each(scanner.Bytes())
	}
	return scanner.Err()
}
