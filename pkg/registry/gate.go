package registry

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
)

// What one sandbox may have of the cache, so that the others have theirs.
const (
	maxConns    = 128 // connections; more are closed at once
	maxRequests = 16  // answered at a time; the others of its connections wait
	maxHeader   = 16 << 10

	headerDeadline = 10 * time.Second
	idleTimeout    = time.Minute
	stuckTimeout   = time.Minute // after which a connection ends whose client takes nothing

	// Questions that have no image as an answer go upstream each: after a number of
	// them, a sandbox gets an answer once in an interval.
	refusalEvery = 200 * time.Millisecond
	refusalBurst = 100 * refusalEvery
)

// gate tells sandboxes apart and keeps each within its limits.
type gate struct {
	net.Listener
	who func(netip.Addr) (string, bool)

	mu     sync.Mutex
	guests map[string]*guest // by sandbox
}

// guest is one sandbox, as the gate sees it. Its methods work on nil, which is
// somebody without limits.
type guest struct {
	slots chan struct{}
	conns int // of gate.mu

	mu   sync.Mutex
	owed time.Time // refused questions, as the time at which they are paid for
}

// Serve answers sandboxes on listener until stop is called. who tells which
// sandbox has an address; others get no answer.
func Serve(ctx context.Context, listener net.Listener, c *Cache, who func(netip.Addr) (string, bool)) (stop func() error) {
	return newGate(listener, who).serve(ctx, c)
}

func newGate(listener net.Listener, who func(netip.Addr) (string, bool)) *gate {
	return &gate{Listener: listener, who: who, guests: map[string]*guest{}}
}

func (g *gate) serve(ctx context.Context, c *Cache) (stop func() error) {
	server := &http.Server{
		Handler: admit(c), ReadHeaderTimeout: headerDeadline, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog:    slog.NewLogLogger(c.log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			if conn, ok := conn.(*guestConn); ok {
				ctx = context.WithValue(ctx, guestKey{}, conn.guest)
			}
			return ctx
		},
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(g) // ends with Close, whose error is the one that counts
	}()
	return func() error {
		err := server.Close()
		<-served
		return err
	}
}

// Accept returns the next connection of a sandbox that may have one more.
func (g *gate) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tcp, ok := conn.(*net.TCPConn)
		if !ok {
			_ = conn.Close()
			return nil, innerdock.Errorf(innerdock.CodeInternal, "the registry cache listens on %T", conn)
		}
		if guest := g.enter(tcp); guest != nil {
			limitStuck(tcp)
			return &guestConn{TCPConn: tcp, guest: guest, leave: sync.OnceFunc(func() { g.leave(guest) })}, nil
		}
		_ = tcp.SetLinger(0)
		_ = tcp.Close()
	}
}

// enter counts a connection; nil when it is one too many, or nobody's.
func (g *gate) enter(conn *net.TCPConn) *guest {
	address, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return nil
	}
	id, ok := g.who(address.Addr().Unmap())
	if !ok {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	found := g.guests[id]
	if found == nil {
		g.sweep()
		found = &guest{slots: make(chan struct{}, maxRequests)}
		g.guests[id] = found
	}
	if found.conns == maxConns {
		return nil
	}
	found.conns++
	return found
}

func (g *gate) leave(one *guest) {
	g.mu.Lock()
	defer g.mu.Unlock()
	one.conns--
}

// sweep forgets who has no connection and owes nothing. Call with mu held.
func (g *gate) sweep() {
	for id, one := range g.guests {
		if one.conns == 0 && one.debt(time.Now()) <= 0 {
			delete(g.guests, id)
		}
	}
}

// limitStuck ends a connection whose other end takes nothing for long, or is gone.
func limitStuck(conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(stuckTimeout.Milliseconds()))
	})
}

// guestConn is a connection that is counted. It keeps TCPConn's ReadFrom, by which
// files are sent without a copy.
type guestConn struct {
	*net.TCPConn
	guest *guest
	leave func()
}

// Close implements net.Conn.
func (c *guestConn) Close() error {
	c.leave()
	return c.TCPConn.Close()
}

type guestKey struct{}

// guestOf is who asks; nil where no gate was passed.
func guestOf(ctx context.Context) *guest {
	found, _ := ctx.Value(guestKey{}).(*guest)
	return found
}

// admit lets a sandbox's requests pass a few at a time.
func admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if who := guestOf(r.Context()); who != nil {
			select {
			case who.slots <- struct{}{}:
				defer func() { <-who.slots }()
			case <-r.Context().Done():
				return
			}
			if late := who.debt(time.Now()) - refusalBurst; late > 0 && !pause(r.Context(), late) {
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// charge counts a refused question.
func (g *guest) charge(now time.Time) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.owed.Before(now) {
		g.owed = now
	}
	g.owed = g.owed.Add(refusalEvery)
}

// debt is how long it takes until nothing is owed.
func (g *guest) debt(now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return max(0, g.owed.Sub(now)) // Sub of the zero time is the least duration: nothing may be taken from it
}
