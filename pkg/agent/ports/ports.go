// Package ports opens ways from outside to what listens in the sandbox: Docker's
// API, and TCP ports, the published ones of containers above all. A way is a
// tunnel on a stream from the server; who may have one was asked there.
package ports

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/reply"
	"github.com/innerdock/innerdock/pkg/agent/wire"
	"github.com/innerdock/innerdock/pkg/tunnel"
)

const (
	maxOpen     = 512 // tunnels at a time
	dialTimeout = 10 * time.Second
)

// Config says where Docker is.
type Config struct {
	API    http.Handler                                // the Docker API
	Docker func(ctx context.Context) (net.Conn, error) // the daemon itself
}

// Ports serves the tunnels of one sandbox.
type Ports struct {
	docker    *api
	published *published
	open      atomic.Int32
}

// New returns the ways of a sandbox.
func New(cfg Config) *Ports {
	p := &published{docker: cfg.Docker, watchers: map[*watcher]struct{}{}}
	return &Ports{docker: &api{door: cfg.API, published: p}, published: p}
}

// Register adds the routes to mux.
func (p *Ports) Register(mux *http.ServeMux) {
	mux.Handle("GET "+wire.PathDockerConnect, p.accept(p.docker.serve))
	mux.Handle("GET "+wire.PathDockerPorts, p.accept(p.published.serve))
	mux.Handle("GET /ports/{port}/connect", reply.Handler(p.connect))
}

// accept makes a handler that hands its tunnel to serve.
func (p *Ports) accept(serve func(ctx context.Context, conn *tunnel.Conn)) http.Handler {
	return reply.Handler(func(w http.ResponseWriter, r *http.Request) error {
		return p.tunnel(w, r, func(conn *tunnel.Conn) { serve(r.Context(), conn) })
	})
}

// connect joins a tunnel with a port of the sandbox.
func (p *Ports) connect(w http.ResponseWriter, r *http.Request) error {
	port, err := strconv.ParseUint(r.PathValue("port"), 10, 16)
	if err != nil || port == 0 {
		return innerdock.Errorf(innerdock.CodeInvalid, "%q is not a port (1 to 65535)", r.PathValue("port"))
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(r.Context(), "tcp4", net.JoinHostPort("127.0.0.1", strconv.FormatUint(port, 10)))
	if errors.Is(err, syscall.ECONNREFUSED) {
		return innerdock.Errorf(innerdock.CodeUnavailable, "nothing listens on port %d of the sandbox", port)
	}
	if err != nil {
		return innerdock.Errorf(innerdock.CodeUnavailable, "connecting to port %d of the sandbox: %w", port, err)
	}
	defer conn.Close()
	return p.tunnel(w, r, func(outside *tunnel.Conn) { _ = tunnel.Join(outside, conn.(*net.TCPConn)) })
}

// tunnel accepts a tunnel within the cap and lets use have it until use returns
// or the agent ends.
func (p *Ports) tunnel(w http.ResponseWriter, r *http.Request, use func(*tunnel.Conn)) error {
	if !tunnel.Asked(r) {
		return innerdock.Errorf(innerdock.CodeInvalid, "ask for a tunnel: `Connection: Upgrade`, `Upgrade: %s`", tunnel.Protocol)
	}
	defer p.open.Add(-1)
	if p.open.Add(1) > maxOpen {
		return innerdock.Errorf(innerdock.CodeExhausted, "the sandbox has %d open tunnels; close some", maxOpen)
	}
	carrier, err := tunnel.Accept(w)
	if err != nil {
		return innerdock.Internal(err, "accepting the tunnel")
	}
	defer carrier.Close()
	defer context.AfterFunc(r.Context(), func() { carrier.Close() })()
	use(tunnel.New(carrier))
	return nil
}
