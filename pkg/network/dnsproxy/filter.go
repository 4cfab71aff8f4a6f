package dnsproxy

import (
	"net"
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// filter takes out of answer the addresses that are not visible to the client.
// An answer that has none left although it had some is refused: an empty one
// would say that the name has no address.
func filter(query, answer *dns.Msg, visible func(netip.Addr) bool) *dns.Msg {
	hidden := 0
	for _, section := range []*[]dns.RR{&answer.Answer, &answer.Ns, &answer.Extra} {
		*section = slices.DeleteFunc(*section, func(rr dns.RR) bool {
			if _, signed := rr.(*dns.TSIG); signed {
				return true // it is between us and the resolver, and Truncate leaves such answers long
			}
			if harmless(rr, visible) {
				return false
			}
			hidden++
			return true
		})
	}
	if hidden > 0 {
		answer.AuthenticatedData = false
	}
	if hidden > 0 && !slices.ContainsFunc(answer.Answer, hasAddress) {
		return failure(query, dns.RcodeRefused, "the name has a private address, which this sandbox may not reach")
	}
	return answer
}

// harmless reports whether all addresses in rr are visible.
func harmless(rr dns.RR, visible func(netip.Addr) bool) bool {
	return !slices.ContainsFunc(addressesIn(rr), func(ip net.IP) bool {
		a, ok := netip.AddrFromSlice(ip)
		return !ok || !visible(a)
	})
}

func hasAddress(rr dns.RR) bool { return len(addressesIn(rr)) > 0 }

// addressesIn returns every address that a client would connect to because of rr.
func addressesIn(rr dns.RR) []net.IP {
	switch rr := rr.(type) {
	case *dns.A:
		return []net.IP{rr.A}
	case *dns.AAAA:
		return []net.IP{rr.AAAA}
	case *dns.SVCB:
		return hints(rr.Value)
	case *dns.HTTPS:
		return hints(rr.Value)
	}
	return nil
}

func hints(values []dns.SVCBKeyValue) []net.IP {
	var out []net.IP
	for _, v := range values {
		switch v := v.(type) {
		case *dns.SVCBIPv4Hint:
			out = append(out, v.Hint...)
		case *dns.SVCBIPv6Hint:
			out = append(out, v.Hint...)
		}
	}
	return out
}
