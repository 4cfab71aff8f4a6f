package network

import (
	"encoding/binary"
	"net"
	"net/netip"
	"regexp"
	"strings"

	"github.com/innerdock/innerdock"
)

// DefaultPool is where addresses come from unless Config.Pool says otherwise.
var DefaultPool = netip.MustParsePrefix("10.213.0.0/16")

const (
	linkPrefix  = "idk"
	netnsPrefix = "innerdock-"
	tablePrefix = "innerdock_"
	netnsDir    = "/run/netns"
	guestLink   = "eth0"
	slotBits    = 30 // one /30 per sandbox
)

var (
	prefixPattern = regexp.MustCompile(`^[a-z2-7]{4}$`)
	idPattern     = regexp.MustCompile(`^[a-z2-7]{12}$`)
)

// hostLink is the host's end of a sandbox's veth pair: 15 bytes, the longest
// name that Linux has.
func hostLink(id string) string { return linkPrefix + id }

func netnsPath(id string) string { return netnsDir + "/" + netnsPrefix + id }

// pool deals addresses out: slot i is its i-th /30.
type pool struct{ netip.Prefix }

func newPool(p netip.Prefix) (pool, error) {
	switch {
	case !p.IsValid() || !p.Addr().Is4():
		return pool{}, innerdock.Errorf(innerdock.CodeInvalid, "the address pool %v is not an IPv4 network; give one such as --pool %v", p, DefaultPool)
	case p.Masked() != p:
		return pool{}, innerdock.Errorf(innerdock.CodeInvalid, "the address pool %v has host bits set; did you mean --pool %v?", p, p.Masked())
	case p.Bits() < 8 || p.Bits() > slotBits-1:
		return pool{}, innerdock.Errorf(innerdock.CodeInvalid, "the address pool %v must be between a /8 and a /29; give one such as --pool %v", p, DefaultPool)
	}
	return pool{p}, nil
}

// capacity is the number of slots for sandboxes: all but the service's.
func (p pool) capacity() int { return 1<<(slotBits-p.Bits()) - 1 }

// service is the address of the gateway's services.
func (p pool) service() netip.Addr { return p.gateway(0) }

// gateway is the host's side of slot i.
func (p pool) gateway(i int) netip.Addr { return p.at(uint32(i)<<2 | 1) }

// guest is the sandbox's side of slot i.
func (p pool) guest(i int) netip.Addr { return p.at(uint32(i)<<2 | 2) }

// index is the inverse of guest.
func (p pool) index(guest netip.Addr) (int, bool) {
	if !p.Contains(guest) {
		return 0, false
	}
	off := toUint(guest) - toUint(p.Addr())
	return int(off >> 2), off&3 == 2 && off>>2 > 0
}

func (p pool) at(offset uint32) netip.Addr { return fromUint(toUint(p.Addr()) + offset) }

func toUint(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func fromUint(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

// macOf derives a locally administered MAC from an address of the pool, so that
// the rules, the interface and a later adoption agree without asking each other.
func macOf(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{0x02, 0x1d, b[0], b[1], b[2], b[3]}
}

// ipNet turns an address and a length into what netlink wants.
func ipNet(a netip.Addr, bits int) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, 32)}
}

// idOf returns the ID in a name made of lead and an ID of this server.
func (n *Network) idOf(name, lead string) (string, bool) {
	id, ok := strings.CutPrefix(name, lead)
	return id, ok && idPattern.MatchString(id) && strings.HasPrefix(id, n.cfg.Prefix)
}
