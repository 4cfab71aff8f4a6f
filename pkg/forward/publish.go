package forward

import (
	"context"
	"crypto/sha256"
	"errors"
	"maps"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/tunnel"
)

const (
	maxPorts = 512    // of one sandbox that are listened for
	tooMany  = "more" // ports than that, among those that failed
)

// Loopback is the address of this machine's loopback network that belongs to a
// sandbox: the same port of two sandboxes does not collide, and no sandbox takes
// a port of 127.0.0.1.
func Loopback(id string) netip.Addr {
	sum := sha256.Sum256([]byte(id))
	return netip.AddrFrom4([4]byte{127, 1 + sum[0]%254, sum[1], 1 + sum[2]%254})
}

// Publisher listens on one address for the ports that a sandbox publishes.
type Publisher struct {
	address netip.Addr
	dial    func(ctx context.Context, port int) (net.Conn, error)
	warn    func(error)
	ctx     context.Context
	cut     context.CancelFunc
	wg      sync.WaitGroup

	mu     sync.Mutex
	open   map[int]net.Listener
	failed map[string]bool // and told so, by port and protocol
}

// NewPublisher listens for nothing yet. warn is told of each port that cannot be
// listened for, once as long as it is published.
func NewPublisher(ctx context.Context, address netip.Addr, dial func(ctx context.Context, port int) (net.Conn, error), warn func(error)) *Publisher {
	p := &Publisher{address: address, dial: dial, warn: warn, open: map[int]net.Listener{}, failed: map[string]bool{}}
	p.ctx, p.cut = context.WithCancel(ctx)
	return p
}

// Set listens for these TCP ports and no others, and warns of those of UDP.
// Connections to a port that is no longer published end by themselves.
func (p *Publisher) Set(published innerdock.PublishedPorts) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		return
	}
	wanted, named := map[int]bool{}, map[string]bool{}
	for _, port := range published.Ports {
		if port < 1 || port > 65535 || wanted[port] {
			continue
		}
		if len(wanted) == maxPorts {
			named[tooMany] = true
			p.fail(tooMany, innerdock.Errorf(innerdock.CodeExhausted, "more than %d ports are published; the others are not forwarded", maxPorts))
			break
		}
		wanted[port], named[name(port, "tcp")] = true, true
	}
	for _, port := range published.UDP[:min(len(published.UDP), maxPorts)] {
		named[name(port, "udp")] = true
		p.fail(name(port, "udp"), innerdock.Errorf(innerdock.CodeUnsupported,
			"port %d/udp is not forwarded: only TCP is; it is reached on the sandbox's own address, from the server's machine", port))
	}
	for port, listener := range p.open {
		if !wanted[port] {
			_ = listener.Close()
			delete(p.open, port)
		}
	}
	maps.DeleteFunc(p.failed, func(name string, _ bool) bool { return !named[name] })
	for port := range wanted {
		if p.open[port] == nil {
			p.listen(port)
		}
	}
}

func (p *Publisher) listen(port int) {
	var config net.ListenConfig
	listener, err := config.Listen(p.ctx, "tcp", netip.AddrPortFrom(p.address, uint16(port)).String())
	if err != nil {
		p.fail(name(port, "tcp"), p.explain(port, err))
		return
	}
	delete(p.failed, name(port, "tcp"))
	p.open[port] = listener
	p.wg.Go(func() {
		accept(p.ctx, listener, func(ctx context.Context, conn tunnel.Stream, full bool) {
			if full {
				return
			}
			inside, err := p.dial(ctx, port)
			if err != nil {
				return // the client sees its connection end, as with Docker's own proxy
			}
			join(ctx, conn, inside)
		})
	})
}

func (p *Publisher) explain(port int, err error) error {
	const other = "--publish-address chooses another address"
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return innerdock.Errorf(innerdock.CodeConflict, "port %d is not forwarded: %s has it in use on this machine; %s", port, p.address, other)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return innerdock.Errorf(innerdock.CodeUnsupported, "port %d is not forwarded: this machine does not have the address %s; use --publish-address 127.0.0.1", port, p.address)
	case errors.Is(err, syscall.EACCES):
		return innerdock.Errorf(innerdock.CodeForbidden, "port %d is not forwarded: this user may not listen on it; publish a port from 1024 on", port)
	}
	return innerdock.Errorf(innerdock.CodeUnavailable, "port %d is not forwarded: %w", port, err)
}

// fail warns of a port, once.
func (p *Publisher) fail(name string, err error) {
	if !p.failed[name] {
		p.failed[name] = true
		p.warn(err)
	}
}

func name(port int, protocol string) string { return strconv.Itoa(port) + "/" + protocol }

// Close stops listening, cuts the connections and waits for them.
func (p *Publisher) Close() {
	p.cut()
	p.mu.Lock()
	for port, listener := range p.open {
		_ = listener.Close()
		delete(p.open, port)
	}
	p.mu.Unlock()
	p.wg.Wait()
}
