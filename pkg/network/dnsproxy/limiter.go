package dnsproxy

import (
	"net"
	"net/netip"
	"sync"
)

// limiter is a listener that takes no more than max connections of one client
// at a time; further ones are closed at once.
type limiter struct {
	net.Listener
	max int

	mu   sync.Mutex
	open map[netip.Addr]int
}

// Accept waits for a connection of a client that may have one.
func (l *limiter) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		client := addrOf(conn.RemoteAddr())
		if l.add(client) {
			return &counted{Conn: conn, done: sync.OnceFunc(func() { l.remove(client) })}, nil
		}
		_ = conn.Close()
	}
}

func (l *limiter) add(client netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[client] >= l.max {
		return false
	}
	l.open[client]++
	return true
}

func (l *limiter) remove(client netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[client]--; l.open[client] == 0 {
		delete(l.open, client)
	}
}

type counted struct {
	net.Conn
	done func()
}

// Close closes the connection and gives its place back.
func (c *counted) Close() error {
	defer c.done()
	return c.Conn.Close()
}
