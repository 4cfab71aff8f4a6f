// Package freeport finds ports that a test may have something listen on later.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/innerdock/innerdock/test/claim"
)

// Ports are chosen from these, which are below those that the kernel gives to
// connections and to whoever listens on port 0.
const first, last = 10_000, 30_000

// Get returns a port of 127.0.0.1 where nobody listens, and which no other test gets
// before this one ends.
func Get(t testing.TB) int {
	t.Helper()
	for range 100 {
		port := first + rand.IntN(last-first)
		name := fmt.Sprintf("freeport-%d", port)
		taken, err := claim.Take(name)
		if err != nil {
			t.Fatal(err)
		}
		if !taken {
			continue
		}
		listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			claim.Give(name)
			continue
		}
		_ = listener.Close()
		t.Cleanup(func() { claim.Give(name) })
		return port
	}
	t.Fatal("no free port was found")
	return 0
}

// Address is Get as an address.
func Address(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", Get(t))
}
