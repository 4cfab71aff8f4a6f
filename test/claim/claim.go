// Package claim lets tests that run at the same time, in whatever processes, have
// something of this machine to themselves.
package claim

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// held are the descriptors by which this process holds what it has taken.
var held sync.Map // of string to int

// Take reports whether what has the name is now the caller's: until Give, or until
// its process ends. The name is an abstract socket address, which the kernel gives
// to one process at a time.
func Take(name string) (bool, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: "@innerdock-" + name}); err != nil {
		_ = unix.Close(fd)
		if errors.Is(err, unix.EADDRINUSE) {
			return false, nil
		}
		return false, err
	}
	held.Store(name, fd)
	return true, nil
}

// Give gives back what Take has taken.
func Give(name string) {
	if fd, found := held.LoadAndDelete(name); found {
		_ = unix.Close(fd.(int))
	}
}
