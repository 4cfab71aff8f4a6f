package server

import (
	"cmp"
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/tunnel"
)

const (
	maxTunnels  = 256              // open at a time, of one sandbox
	dockerWait  = 30 * time.Second // for a Docker that is starting
	drainPause  = 500 * time.Millisecond
	maxRefusal  = 64 << 10 // bytes of an agent's answer that is no tunnel
	docsOfTheir = "Asks with `Connection: Upgrade` and `Upgrade: " + tunnel.Protocol + "`, over HTTP/1.1. " +
		"After the answer 101, both sides send frames: a length of four bytes (big-endian, 1 MiB at the most) and as many bytes; " +
		"a length of zero ends a direction. A connection that ends without it was cut off. "
)

// addTunnels adds the operations whose connection becomes a tunnel to the agent.
func (s *Server) addTunnels() {
	port := pathParameter{"port", huma.TypeInteger, "TCP port in the sandbox."}
	for _, op := range []struct {
		name, path, summary, description string
		parameters                       []pathParameter
		target                           func(ctx context.Context, tenant string, r *http.Request) (string, error)
	}{
		{
			"connectDocker", "/docker/connect", "Connect to the Docker API of a sandbox",
			docsOfTheir + "In the tunnel is the HTTP of the Docker API, with its own upgrades. Waits for a Docker that is starting.",
			[]pathParameter{idParameter}, func(ctx context.Context, tenant string, r *http.Request) (string, error) {
				return "/docker/connect", s.dockerReady(ctx, tenant, r.PathValue("id"))
			},
		},
		{
			"followPorts", "/docker/ports", "Follow the ports that containers publish",
			docsOfTheir + "In the tunnel the server sends the published ports of TCP and of UDP and every change, `{\"version\":2,\"ports\":[8080],\"udp\":[53]}`, one object a line. " +
				"The client sends `{\"version\":2}` when it has acted on one; Docker holds back the answer to a container's start until then, for some seconds at the most.",
			[]pathParameter{idParameter}, func(ctx context.Context, tenant string, r *http.Request) (string, error) {
				return "/docker/ports", s.dockerReady(ctx, tenant, r.PathValue("id"))
			},
		},
		{
			"connectPort", "/ports/{port}/connect", "Connect to a TCP port of a sandbox",
			docsOfTheir + "In the tunnel is what goes to and from the port, on 127.0.0.1 in the sandbox.",
			[]pathParameter{idParameter, port}, func(_ context.Context, _ string, r *http.Request) (string, error) {
				n, err := strconv.ParseUint(r.PathValue("port"), 10, 16)
				if err != nil || n == 0 {
					return "", innerdock.Errorf(innerdock.CodeInvalid, "%q is not a port (1 to 65535)", r.PathValue("port"))
				}
				return "/ports/" + strconv.FormatUint(n, 10) + "/connect", nil
			},
		},
	} {
		s.handleRaw(huma.Operation{
			OperationID: op.name, Method: http.MethodGet, Path: "/v1/sandboxes/{id}" + op.path, Tags: []string{"tunnels"},
			Summary: op.summary, Description: op.description, Parameters: s.parameters(op.parameters...),
			Responses: map[string]*huma.Response{"101": {Description: "The connection is a tunnel from here on."}},
		}, func(w http.ResponseWriter, r *http.Request) {
			if err := s.connect(w, r, op.target); err != nil {
				s.fail(w, r, err)
			}
		})
	}
}

// connect makes r's connection a tunnel to the agent, and serves it to its end.
func (s *Server) connect(w http.ResponseWriter, r *http.Request, target func(context.Context, string, *http.Request) (string, error)) error {
	tenant, id := principalOf(r.Context()).Tenant, r.PathValue("id")
	sandbox, err := s.backend.Sandbox(r.Context(), tenant, id)
	if err != nil {
		return err
	}
	if !tunnel.Asked(r) {
		return innerdock.Errorf(innerdock.CodeInvalid, "ask for a tunnel, over HTTP/1.1: `Connection: Upgrade`, `Upgrade: %s`", tunnel.Protocol)
	}
	path, err := target(r.Context(), tenant, r)
	if err != nil {
		return err
	}
	inside, err := s.dialTunnel(r.Context(), tenant, sandbox.ID, path)
	if err != nil {
		return err
	}
	outside, err := tunnel.Accept(w)
	if err != nil {
		_ = inside.Close()
		return innerdock.Internal(err, "making the connection a tunnel")
	}
	tunnel.Pipe(outside, inside)
	return nil
}

// dialDocker opens a tunnel to Docker for this server's own use.
func (s *Server) dialDocker(ctx context.Context, tenant, id string) (net.Conn, error) {
	if err := s.dockerReady(ctx, tenant, id); err != nil {
		return nil, err
	}
	carrier, err := s.dialTunnel(ctx, tenant, id, "/docker/connect")
	if err != nil {
		return nil, err
	}
	return tunnel.New(carrier), nil
}

// dockerReady waits for Docker and says why there is none.
func (s *Server) dockerReady(ctx context.Context, tenant, id string) error {
	ctx, release := s.patience(ctx, dockerWait.Seconds())
	defer release()
	status, err := s.backend.WaitDocker(ctx, tenant, id)
	if err != nil {
		return err
	}
	switch status.State {
	case innerdock.DockerReady:
		return nil
	case innerdock.DockerDisabled:
		if sandbox, err := s.backend.Sandbox(ctx, tenant, id); err != nil {
			return err
		} else if sandbox.State == innerdock.StateTerminating || sandbox.State.Ended() {
			return endedError(sandbox)
		}
		return innerdock.Errorf(innerdock.CodeDockerDisabled, "this sandbox was created without Docker; create one with docker enabled")
	case innerdock.DockerFailed:
		return innerdock.Errorf(cmp.Or(status.Code, innerdock.CodeDockerFailed), "%s", status.Reason)
	}
	return innerdock.Errorf(innerdock.CodeUnavailable, "Docker in sandbox %s is still %s; try again, or see `innerdock logs --docker %s`", id, status.State, id)
}

// dialTunnel asks the agent of the sandbox with this ID for a tunnel and returns
// what carries it. It counts until it is closed.
func (s *Server) dialTunnel(ctx context.Context, tenant, id, path string) (net.Conn, error) {
	conn, err := s.backend.DialAgent(ctx, tenant, id)
	if err != nil {
		return nil, s.whyUnreachable(ctx, tenant, id, err)
	}
	counted, err := s.tunnels.add(id, conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	carrier, err := s.askAgent(ctx, counted, path)
	if err != nil {
		_ = counted.Close()
		return nil, s.whyUnreachable(ctx, tenant, id, err)
	}
	return carrier, nil
}

func (s *Server) askAgent(ctx context.Context, conn net.Conn, path string) (net.Conn, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path, nil)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	carrier, response, err := tunnel.Request(conn, request) //nolint:bodyclose // what there is of a body is the connection's, which the caller closes
	switch {
	case err != nil:
		return nil, err
	case carrier == nil:
		response.Body = io.NopCloser(io.LimitReader(response.Body, maxRefusal))
		return nil, agentError(response)
	case !stop():
		return nil, ctx.Err()
	}
	return carrier, nil
}

// tunnels are those that are open.
type tunnels struct {
	mu   sync.Mutex
	open map[*counted]struct{}
	of   map[string]int // of a sandbox
	none chan struct{}  // closed when there are none; nil while nobody waits
	over bool           // no more are to be opened
}

// counted is an open tunnel's connection to the agent.
type counted struct {
	net.Conn
	of    string
	moved atomic.Int64 // bytes
	close func() error
}

func (t *tunnels) add(id string, conn net.Conn) (*counted, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return nil, innerdock.Errorf(innerdock.CodeUnavailable, "the server is stopping; try again when it is back")
	}
	if t.of[id] >= maxTunnels {
		return nil, innerdock.Errorf(innerdock.CodeExhausted, "there are %d connections to sandbox %s already; close some", maxTunnels, id)
	}
	c := &counted{Conn: conn, of: id}
	c.close = sync.OnceValue(func() error {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.open, c)
		if t.of[id]--; t.of[id] == 0 {
			delete(t.of, id)
		}
		if len(t.open) == 0 && t.none != nil {
			close(t.none)
			t.none = nil
		}
		return conn.Close()
	})
	t.open[c] = struct{}{}
	t.of[id]++
	return c, nil
}

func (c *counted) Close() error { return c.close() }

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.moved.Add(int64(n))
	return n, err
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.moved.Add(int64(n))
	return n, err
}

// drain opens no more tunnels, lets those that are open go on while bytes move
// through them, cuts those that are quiet, and all when limit is done.
func (t *tunnels) drain(limit context.Context) {
	ticker := time.NewTicker(drainPause)
	defer ticker.Stop()
	seen := map[*counted]int64{}
	for {
		none := t.cut(func(c *counted) bool {
			before, known := seen[c]
			seen[c] = c.moved.Load()
			return known && before == seen[c] || limit.Err() != nil
		})
		select {
		case <-none:
			return
		case <-ticker.C:
		case <-limit.Done():
		}
	}
}

// cut closes the tunnels that are to be, and returns what is closed when there
// are none.
func (t *tunnels) cut(which func(*counted) bool) <-chan struct{} {
	t.mu.Lock()
	t.over = true
	var over []*counted
	for c := range t.open {
		if which(c) {
			over = append(over, c)
		}
	}
	if t.none == nil {
		t.none = make(chan struct{})
	}
	none := t.none
	if len(t.open) == 0 {
		close(none)
		t.none = nil
	}
	t.mu.Unlock()
	for _, c := range over {
		_ = c.Close()
	}
	return none
}
