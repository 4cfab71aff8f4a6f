// Package freepool finds addresses for a test's sandboxes.
package freepool

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// claims are the descriptors by which this process holds pools.
var claims sync.Map // of netip.Prefix to int

// In returns the first /20 of 10.second.0.0/16 that no interface of this
// host has an address in, as a test that was killed may have left its own, and that
// no other test has claimed. It is the caller's until Release, or until its
// process ends.
func In(second byte) (netip.Prefix, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Prefix{}, err
	}
	for third := 0; third < 256; third += 16 {
		pool := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, second, byte(third), 0}), 20)
		if overlaps(pool, addresses) {
			continue
		}
		if claimed, err := claim(pool); claimed || err != nil {
			return pool, err
		}
	}
	return netip.Prefix{}, fmt.Errorf("every part of 10.%d.0.0/16 is in use; see `ip address`", second)
}

// Release gives back what In returned.
func Release(pool netip.Prefix) {
	if fd, found := claims.LoadAndDelete(pool); found {
		_ = unix.Close(fd.(int)) // which frees the name
	}
}

// claim takes an abstract socket address that stands for the pool: the kernel
// gives it to one process at a time, and takes it back when that ends.
func claim(pool netip.Prefix) (bool, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: "@innerdock-freepool-" + pool.String()}); err != nil {
		_ = unix.Close(fd)
		if errors.Is(err, unix.EADDRINUSE) {
			return false, nil
		}
		return false, err
	}
	claims.Store(pool, fd)
	return true, nil
}

func overlaps(pool netip.Prefix, addresses []net.Addr) bool {
	for _, address := range addresses {
		if prefix, err := netip.ParsePrefix(address.String()); err == nil && prefix.Masked().Overlaps(pool) {
			return true
		}
	}
	return false
}
