package network

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var private = []string{"10.0.0.5", "10.0.0.6", "100.64.0.1", "169.254.169.254", "172.16.0.9", "192.168.7.7", "168.63.129.16", "192.0.0.192", "0.1.2.3"}

// hostServer listens on every address of the host and counts who comes.
func hostServer(t *testing.T, port int) *atomic.Int64 {
	t.Helper()
	hits := new(atomic.Int64)
	l, err := net.Listen("tcp4", fmt.Sprintf(":%d", port))
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp4", fmt.Sprintf(":%d", port))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			hits.Add(1)
			_, _ = c.Write([]byte("hello"))
			_ = c.Close()
		}
	})
	wg.Go(func() {
		for {
			if _, _, err := pc.ReadFrom(make([]byte, 64)); err != nil {
				return
			}
			hits.Add(1)
		}
	})
	t.Cleanup(func() {
		_, _ = l.Close(), pc.Close()
		wg.Wait()
	})
	return hits
}

func TestPublicIsReachable(t *testing.T) {
	n := open(t, Config{})
	e := attach(t, n, 1, Policy{})
	bare := world.sniff.source(e.Address.Addr())
	for _, a := range []string{publicIP, otherIP, routerIP} {
		if err := reach(e.NetNS, at(a, tcpPort), patience); err != nil {
			t.Errorf("TCP to %s: %v", a, err)
		}
		if err := ping(e.NetNS, a, time.Second); err != nil {
			t.Errorf("ICMP to %s: %v", a, err)
		}
	}
	if err := send(e.NetNS, at(publicIP, 9999), "public-1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "UDP", func() bool { return world.sniff.mark("public-1") == 1 })
	if e.MTU != testMTU {
		t.Errorf("MTU %d, want the uplink's %d", e.MTU, testMTU)
	}
	if got := world.sniff.source(e.Address.Addr()) - bare; got != 0 {
		t.Errorf("%d packets left with the sandbox's own address", got)
	}
}

func TestPrivateRangesAreClosed(t *testing.T) {
	n := open(t, Config{})
	e := attach(t, n, 1, Policy{})
	before := counts(private...)
	closed(t, e.NetNS, private...)
	closed(t, e.NetNS, "224.0.0.1", "255.255.255.255", "240.0.0.1")
	if err := reach(e.NetNS, at(publicIP, tcpPort), patience); err != nil {
		t.Error("control:", err)
	}
	unseen(t, before, private...)
}

func TestNeighboursAreClosed(t *testing.T) {
	n := open(t, Config{})
	wide := Policy{Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.213.0.10/32")}}
	a, b := attach(t, n, 1, wide), attach(t, n, 2, Policy{})
	s := snifferIn(t, b.NetNS)
	closed(t, a.NetNS, b.Address.Addr().String(), b.Gateway.String())
	if got := s.source(a.Address.Addr()); got != 0 {
		t.Errorf("%d packets of a neighbour arrived", got)
	}
	if got := s.to(b.Address.Addr().String()); got != 0 {
		t.Errorf("%d packets arrived", got)
	}
}

func snifferIn(t *testing.T, path string) *sniffer {
	t.Helper()
	var s *sniffer
	if err := inside(path, func() (err error) {
		s, err = newSniffer()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.close() })
	return s
}

func TestHostIsClosed(t *testing.T) {
	n := open(t, Config{})
	a, b := attach(t, n, 1, Policy{}), attach(t, n, 2, Policy{})
	hits := hostServer(t, tcpPort)
	udp := hostServer(t, 9999)
	addrs := []string{hostAddr, a.Gateway.String(), b.Gateway.String(), a.Service.String(), "127.0.0.1"}
	closed(t, a.NetNS, addrs[:4]...)
	if hits.Load() != 0 || udp.Load() != 0 {
		t.Errorf("the host was reached: %d TCP, %d UDP", hits.Load(), udp.Load())
	}
}

// A port that the host publishes by DNAT, as Docker does, is still the host's.
func TestPublishedPortsAreClosed(t *testing.T) {
	n := open(t, Config{})
	e := attach(t, n, 1, Policy{})
	shell(t, `nft add table ip published && nft 'add chain ip published p { type nat hook prerouting priority dstnat; }' &&
		nft add rule ip published p ip daddr `+hostAddr+` tcp dport 8088 dnat to `+at(publicIP, tcpPort)+` &&
		nft 'add chain ip published q { type nat hook postrouting priority srcnat; }' && nft add rule ip published q ct status dnat masquerade`)
	defer shell(t, "nft delete table ip published")
	must(t, reach(world.path, at(hostAddr, 8088), patience))
	if err := reach(e.NetNS, at(hostAddr, 8088), quickTime); err == nil {
		t.Error("a sandbox reached a published port of the host")
	}
}

func TestServicesAreOpen(t *testing.T) {
	n := open(t, Config{RegistryPort: 5001})
	hits := hostServer(t, 5001)
	for i, p := range []Policy{{}, {Block: true}} {
		e := attach(t, n, i+1, p)
		if err := reach(e.NetNS, at(e.Service.String(), 5001), patience); err != nil {
			t.Errorf("registry with %+v: %v", p, err)
		}
		if err := reach(e.NetNS, at(e.Gateway.String(), 5001), quickTime); err == nil {
			t.Error("the registry's port is open on the gateway's address too")
		}
	}
	if hits.Load() != 2 {
		t.Errorf("%d hits, want 2", hits.Load())
	}
}

func TestBlock(t *testing.T) {
	cfg := Config{Allow: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16")}}
	n := open(t, cfg)
	e := attach(t, n, 1, Policy{Block: true, Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/32")}})
	all := append(slices.Clone(private), publicIP, otherIP, "10.77.0.1")
	before := counts(all...)
	closed(t, e.NetNS, all...)
	unseen(t, before, all...)
}

func TestAllowOpensWhatItSays(t *testing.T) {
	hits := hostServer(t, 81)
	tests := []struct {
		name         string
		server, own  []string
		open, closed []string // closed: of the internet
		host         bool
	}{
		{name: "address", own: []string{"10.0.0.5/32"}, open: []string{"10.0.0.5"}, closed: []string{"10.0.0.6", "10.77.0.1", "172.16.0.9"}},
		{name: "network", own: []string{"10.0.0.0/24"}, open: []string{"10.0.0.5", "10.0.0.6"}, closed: []string{"10.77.0.1"}},
		{name: "overlapping and adjacent", own: []string{"10.0.0.0/24", "10.0.0.0/8", "10.0.0.5/32", "11.0.0.0/8"}, open: []string{"10.0.0.5", "10.77.0.1"}, closed: []string{"100.64.0.1"}},
		{name: "server's", server: []string{"10.77.0.0/16", "172.16.0.9/32"}, open: []string{"10.77.0.1", "172.16.0.9"}, closed: []string{"10.0.0.5"}},
		{name: "both", server: []string{"10.77.0.0/16"}, own: []string{"169.254.169.254/32"}, open: []string{"10.77.0.1", "169.254.169.254"}, closed: []string{"10.0.0.5"}},
		{name: "a network does not open the host", own: []string{"192.0.2.0/24", "10.0.0.0/8"}, closed: []string{"172.16.0.9"}},
		{name: "the host's address", own: []string{hostAddr + "/32"}, host: true},
		{name: "the host's address, by the server", server: []string{hostAddr + "/32"}, host: true},
		{name: "everything", own: []string{"0.0.0.0/0"}, open: private[:6]},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			n := open(t, Config{Allow: prefixes(test.server)})
			e, other := attach(t, n, 1, Policy{Allow: prefixes(test.own)}), attach(t, n, 2, Policy{})
			before := counts(test.closed...)
			for _, a := range test.open {
				if err := reach(e.NetNS, at(a, tcpPort), patience); err != nil {
					t.Errorf("%s: %v", a, err)
				}
			}
			closed(t, e.NetNS, test.closed...)
			unseen(t, before, test.closed...)
			if len(test.own) > 0 && len(test.open) > 0 && len(test.server) == 0 {
				closed(t, other.NetNS, test.open...)
			}
			hits.Store(0)
			err := reach(e.NetNS, at(hostAddr, 81), waitFor(test.host))
			if got := err == nil; got != test.host || (hits.Load() > 0) != test.host {
				t.Errorf("host reached: %v (%d hits), want %v", got, hits.Load(), test.host)
			}
		})
	}
}

func prefixes(list []string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestInbound(t *testing.T) {
	n := open(t, Config{})
	e := attach(t, n, 1, Policy{})
	s := snifferIn(t, e.NetNS)
	var l net.Listener
	if err := inside(e.NetNS, func() (err error) {
		l, err = net.Listen("tcp4", ":8000")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { echo(l) })
	defer wg.Wait()
	defer l.Close()
	guest := e.Address.Addr().String()
	if err := reach(world.path, at(guest, 8000), quickTime); err == nil {
		t.Error("the internet reached a sandbox")
	}
	if err := send(world.path, at(guest, 8000), "inbound1"); err != nil {
		t.Fatal(err)
	}
	if err := reach(world.path, at(e.Service.String(), dnsPort), quickTime); err == nil {
		t.Error("the internet reached the DNS forwarder")
	}
	if err := reach("/proc/self/ns/net", at(guest, 8000), patience); err != nil {
		t.Errorf("the host does not reach a sandbox: %v", err)
	}
	if s.mark("inbound1") != 0 {
		t.Error("a datagram from the internet arrived")
	}
}

func TestIPv6IsClosed(t *testing.T) {
	n := open(t, Config{})
	e := attach(t, n, 1, Policy{})
	// The interface has no IPv6, which drops everything; so give it some.
	must(t, os.WriteFile("/proc/sys/net/ipv6/conf/"+hostLink(id("abcd", 1))+"/disable_ipv6", []byte("0"), 0o644))
	before := dropped(t, "source")
	// An Ethernet frame with an IPv6 packet to everyone on the link.
	frame := slices.Concat([]byte{0x33, 0x33, 0, 0, 0, 1}, macOf(e.Address.Addr()), []byte{0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 59, 1},
		netip.MustParseAddr("fe80::1").AsSlice(), netip.MustParseAddr("ff02::1").AsSlice())
	must(t, sendFrame(e.NetNS, frame))
	eventually(t, "the drop", func() bool { return dropped(t, "source") > before })
}

func TestSpoofing(t *testing.T) {
	n := open(t, Config{})
	a, b := attach(t, n, 1, Policy{}), attach(t, n, 2, Policy{})
	mac := macOf(a.Address.Addr())
	tests := []struct {
		name string
		mac  net.HardwareAddr
		src  netip.Addr
		want int
	}{
		{"own", mac, a.Address.Addr(), 1},
		{"neighbour's address", mac, b.Address.Addr(), 0},
		{"neighbour's identity", macOf(b.Address.Addr()), b.Address.Addr(), 0},
		{"own address, other MAC", macOf(b.Address.Addr()), a.Address.Addr(), 0},
		{"the gateway", mac, a.Gateway, 0},
		{"the service", mac, a.Service, 0},
		{"the host", mac, netip.MustParseAddr(hostAddr), 0},
		{"outside", mac, netip.MustParseAddr("198.51.100.77"), 0},
		{"loopback", mac, netip.MustParseAddr("127.0.0.1"), 0},
		{"nothing", mac, netip.MustParseAddr("0.0.0.0"), 0},
	}
	for i, test := range tests {
		mark := fmt.Sprintf("spoof%03d", i)
		frame := udpFrame(test.mac, macOf(a.Gateway), test.src, netip.MustParseAddr(publicIP), mark)
		if err := sendFrame(a.NetNS, frame); err != nil {
			t.Fatal(err)
		}
	}
	if err := sendFrame(a.NetNS, udpFrame(mac, macOf(a.Gateway), a.Address.Addr(), netip.MustParseAddr(publicIP), "spoofend")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the last frame", func() bool { return world.sniff.mark("spoofend") == 1 })
	for i, test := range tests {
		if got := world.sniff.mark(fmt.Sprintf("spoof%03d", i)); got != test.want {
			t.Errorf("%s: %d packets arrived, want %d", test.name, got, test.want)
		}
	}
}

// sendFrame puts a frame on the sandbox's wire, as a raw socket does.
func sendFrame(path string, frame []byte) error {
	return inside(path, func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		link, err := net.InterfaceByName(guestLink)
		if err != nil {
			return err
		}
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Index, Halen: 6})
	})
}

// udpFrame makes an Ethernet frame with a UDP datagram.
func udpFrame(from, to net.HardwareAddr, src, dst netip.Addr, payload string) []byte {
	udp := slices.Concat([]byte{0x30, 0x39, 0x27, 0x0f, 0, byte(8 + len(payload)), 0, 0}, []byte(payload))
	ip := slices.Concat([]byte{0x45, 0, 0, byte(20 + len(udp)), 0, 1, 0x40, 0, 64, unix.IPPROTO_UDP, 0, 0}, src.AsSlice(), dst.AsSlice())
	sum := uint32(0)
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(ip[i])<<8 | uint32(ip[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	ip[10], ip[11] = byte(^sum>>8), byte(^sum)
	return slices.Concat(to, from, []byte{8, 0}, ip, udp)
}

func TestFlowsAreLimited(t *testing.T) {
	n := open(t, Config{MaxFlows: 20})
	e, other := attach(t, n, 1, Policy{}), attach(t, n, 2, Policy{})
	for i := range 60 {
		if err := send(e.NetNS, at(publicIP, 10000+i), "flow-lim"); err != nil {
			t.Fatal(err)
		}
	}
	if err := send(other.NetNS, at(publicIP, 9999), "flow-end"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the neighbour's packet", func() bool { return world.sniff.mark("flow-end") == 1 })
	if got := world.sniff.mark("flow-lim"); got != 20 {
		t.Errorf("%d flows got through, want 20", got)
	}
}
