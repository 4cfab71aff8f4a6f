// Package freepool finds addresses for a test's sandboxes.
package freepool

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/innerdock/innerdock/test/claim"
)

// In returns the first /20 of 10.second.0.0/16 that no interface of this
// host has an address in, as a test that was killed may have left its own, and that
// no other test has. It is the caller's until Release, or until its process ends.
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
		if taken, err := claim.Take(name(pool)); taken || err != nil {
			return pool, err
		}
	}
	return netip.Prefix{}, fmt.Errorf("every part of 10.%d.0.0/16 is in use; see `ip address`", second)
}

// Release gives back what In returned.
func Release(pool netip.Prefix) { claim.Give(name(pool)) }

// name is known to the tests in Python, too.
func name(pool netip.Prefix) string { return "freepool-" + pool.String() }

func overlaps(pool netip.Prefix, addresses []net.Addr) bool {
	for _, address := range addresses {
		if prefix, err := netip.ParsePrefix(address.String()); err == nil && prefix.Masked().Overlaps(pool) {
			return true
		}
	}
	return false
}
