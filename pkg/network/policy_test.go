package network

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestSpansAreTheirPrefixes(t *testing.T) {
	address := rapid.Custom(func(t *rapid.T) netip.Addr { return fromUint(rapid.Uint32().Draw(t, "address")) })
	prefix := rapid.Custom(func(t *rapid.T) netip.Prefix {
		return netip.PrefixFrom(address.Draw(t, "base"), rapid.IntRange(0, 32).Draw(t, "bits"))
	})
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(prefix, 0, 8).Draw(t, "prefixes")
		got := spans(list)
		for i := range got[:max(len(got)-1, 0)] {
			if !got[i].to.Next().Less(got[i+1].from) {
				t.Fatalf("%v touches %v", got[i], got[i+1])
			}
		}
		probes := []netip.Addr{address.Draw(t, "probe")}
		for _, s := range got {
			probes = append(probes, s.from, s.to)
			for _, edge := range []netip.Addr{s.from.Prev(), s.to.Next()} {
				if edge.IsValid() {
					probes = append(probes, edge)
				}
			}
		}
		for _, a := range probes {
			want := slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
			if (access{nets: got}).opens(a) != want {
				t.Fatalf("%v: %v, want %v of %v", a, !want, want, list)
			}
		}
	})
}

func TestPoolIndexIsTheInverseOfGuest(t *testing.T) {
	for _, s := range []string{"10.213.0.0/16", "10.0.0.0/8", "192.168.255.248/29"} {
		p, err := newPool(netip.MustParsePrefix(s))
		must(t, err)
		for _, i := range []int{1, (p.capacity() + 1) / 2, p.capacity()} {
			if got, ok := p.index(p.guest(i)); !ok || got != i {
				t.Errorf("%s: index(guest(%d)) = %d, %v", s, i, got, ok)
			}
			if !p.Contains(p.gateway(i)) || p.gateway(i).Next() != p.guest(i) {
				t.Errorf("%s: slot %d is %v, %v", s, i, p.gateway(i), p.guest(i))
			}
		}
		for _, a := range []netip.Addr{p.service(), p.gateway(1), p.guest(0), netip.MustParseAddr("198.51.100.2")} {
			if i, ok := p.index(a); ok {
				t.Errorf("%s: %v has the index %d", s, a, i)
			}
		}
	}
}

func TestDenied(t *testing.T) {
	tests := map[string]bool{
		"10.1.2.3": true, "172.31.255.255": true, "172.32.0.0": false, "100.127.0.1": true, "100.128.0.1": false,
		"169.254.169.254": true, "127.0.0.53": true, "0.0.0.0": true, "224.0.0.251": true, "255.255.255.255": true,
		"198.51.100.1": false, "203.0.113.9": false, "192.0.2.1": false, "8.8.8.8": false,
		"::1": true, "::": true, "fd00::5": true, "fe80::1": true, "ff02::1": true, "2001:db8::1": false,
		"::ffff:10.0.0.5": true, "::ffff:8.8.8.8": false, "64:ff9b::a00:5": true, "64:ff9b::808:808": false,
	}
	for s, want := range tests {
		if got := isDenied(netip.MustParseAddr(s)); got != want {
			t.Errorf("isDenied(%s) = %v", s, got)
		}
	}
}
