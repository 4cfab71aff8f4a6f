package wire

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/yamux"
	"golang.org/x/sys/unix"
)

// pair returns the two sides of a session; what the second one reads can be held.
func pair(t *testing.T) (near, far *yamux.Session, held *sync.Mutex) {
	t.Helper()
	one, two := ends(t, unix.SOCK_STREAM)
	var err error
	other := &holdable{Conn: two}
	if near, err = yamux.Client(one, SessionConfig()); err != nil {
		t.Fatal(err)
	}
	if far, err = yamux.Server(other, SessionConfig()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
	return near, far, &other.held
}

// holdable is a connection whose reader can be held.
type holdable struct {
	net.Conn
	held sync.Mutex
}

func (h *holdable) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	h.held.Lock()
	defer h.held.Unlock()
	return n, err
}

// Whoever does not answer loses the session, but not while it is known to be quiet.
func TestKeepAlive(t *testing.T) {
	const interval = 500 * time.Millisecond // a busy machine answers within a few
	near, far, held := pair(t)
	var mu sync.Mutex
	quiet := true
	over := make(chan struct{})
	go func() {
		keepAliveBy(near, func() bool { mu.Lock(); defer mu.Unlock(); return quiet }, interval)
		close(over)
	}()

	held.Lock()
	select {
	case <-over:
		t.Fatal("a quiet side lost its session")
	case <-time.After(3 * patience * interval):
	}
	held.Unlock()
	mu.Lock()
	quiet = false
	mu.Unlock()
	select {
	case <-far.CloseChan():
		t.Fatal("a side that answers lost its session")
	case <-time.After(3 * patience * interval):
	}
	held.Lock()
	defer held.Unlock()
	select {
	case <-over:
	case <-time.After(time.Minute):
		t.Fatal("a side that does not answer keeps its session")
	}
}
