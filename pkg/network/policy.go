package network

import (
	"net/netip"
	"slices"

	"github.com/innerdock/innerdock"
)

// Policy widens or closes what one sandbox may reach.
type Policy struct {
	// Block leaves nothing but the gateway's services: DNS and the registry
	// cache. It wins over Allow, the server's too.
	Block bool
	// Allow opens IPv4 networks of the deny list. A network opens what is behind
	// the host; an address of the host itself is opened only by an entry that is
	// exactly that address (/32). Other sandboxes stay closed whatever it says.
	Allow []netip.Prefix
}

// denied are the networks that no sandbox reaches unless they are allowed.
// Documentation networks are not among them: nothing private lives there.
var denied = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("168.63.129.16/32"), // Azure's wire server
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.0.0.192/32"), // Oracle Cloud's metadata
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("240.0.0.0/4"),
}

// denied6 matter to DNS answers alone: IPv6 packets are dropped altogether.
var denied6 = []netip.Prefix{
	netip.MustParsePrefix("::/127"), // unspecified and loopback
	netip.MustParsePrefix("fc00::/7"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("fec0::/10"),
	netip.MustParsePrefix("ff00::/8"),
}

// nat64 embeds an IPv4 address in its last four bytes.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// span is a closed range of IPv4 addresses.
type span struct{ from, to netip.Addr }

func (s span) contains(a netip.Addr) bool { return s.from.Compare(a) <= 0 && a.Compare(s.to) <= 0 }

// spans turns prefixes into the fewest ranges, sorted: sets of the kernel
// refuse elements that overlap.
func spans(prefixes []netip.Prefix) []span {
	var out []span
	for _, p := range slices.SortedFunc(slices.Values(prefixes), netip.Prefix.Compare) {
		from := p.Masked().Addr()
		to := fromUint(toUint(from) | ^uint32(0)>>p.Bits())
		if last := len(out) - 1; last >= 0 && (out[last].contains(from) || out[last].to.Next() == from) {
			if out[last].to.Less(to) {
				out[last].to = to
			}
			continue
		}
		out = append(out, span{from, to})
	}
	return out
}

// single returns the addresses that prefixes name exactly.
func single(prefixes []netip.Prefix) []netip.Addr {
	var out []netip.Addr
	for _, p := range prefixes {
		if p.IsSingleIP() && !slices.Contains(out, p.Addr()) {
			out = append(out, p.Addr())
		}
	}
	return out
}

// maxAllow is the number of networks that one policy may open.
const maxAllow = 256

func checkAllow(prefixes []netip.Prefix) error {
	if len(prefixes) > maxAllow {
		return innerdock.Errorf(innerdock.CodeInvalid, "%d networks are allowed, and %d is the limit; join them to larger ones", len(prefixes), maxAllow)
	}
	for _, p := range prefixes {
		switch {
		case !p.IsValid():
			return innerdock.Errorf(innerdock.CodeInvalid, "an allowed network is not valid; give CIDRs such as 192.168.1.0/24")
		case !p.Addr().Is4():
			return innerdock.Errorf(innerdock.CodeUnsupported, "cannot allow %v: sandboxes have no IPv6 yet; give IPv4 networks", p)
		}
	}
	return nil
}

// access is a Policy in the terms of the rules.
type access struct {
	block bool
	nets  []span       // opened beyond the host
	hosts []netip.Addr // opened although they may be the host's own
}

func (p Policy) access() access {
	if p.Block {
		return access{block: true}
	}
	return access{nets: spans(p.Allow), hosts: single(p.Allow)}
}

func (a access) opens(ip netip.Addr) bool {
	return !a.block && slices.ContainsFunc(a.nets, func(s span) bool { return s.contains(ip) })
}

// isDenied reports whether ip is private in the sense of the deny list, however
// an IPv6 address dresses it.
func isDenied(ip netip.Addr) bool {
	ip = plain(ip)
	list := denied
	if ip.Is6() {
		list = denied6
	}
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// plain strips what wraps an IPv4 address: a mapped or a NAT64 address.
func plain(ip netip.Addr) netip.Addr {
	ip = ip.WithZone("").Unmap()
	if nat64.Contains(ip) {
		b := ip.As16()
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return ip
}
