// Package freeport finds ports that a test may have something listen on later.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

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
		if !free(port) {
			claim.Give(name)
			continue
		}
		t.Cleanup(func() { claim.Give(name) })
		return port
	}
	t.Fatal("no free port was found")
	return 0
}

// free reports whether the port can be bound. No program may be started meanwhile: until
// it runs, its process has a copy of each file of this one, and so the port.
func free(port int) bool {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}) == nil
}

// Address is Get as an address.
func Address(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", Get(t))
}
