package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock/test/elsewhere"
)

// The tests run as the host of a small world: the process is started again in
// its own network and mount namespaces, whose default route leads to a fake
// internet in a third namespace. Nothing of the real host is touched.

const rigEnv = "INNERDOCK_NETWORK_RIG"

const (
	hostAddr  = "192.0.2.2"     // the host, on its uplink
	routerIP  = "192.0.2.1"     // the internet's end of it
	publicIP  = "198.51.100.10" // the positive control
	otherIP   = "203.0.113.20"  // another one
	dnsIP     = "198.51.100.53"
	testMTU   = 1400
	tcpPort   = 80
	quickTime = 150 * time.Millisecond // for what must not arrive
	patience  = 30 * time.Second       // for what must
)

// waitFor is how long to wait for what must arrive, or must not.
func waitFor(it bool) time.Duration {
	if it {
		return patience
	}
	return quickTime
}

// worldAddrs are the addresses of the fake internet.
var worldAddrs = []string{
	publicIP, otherIP, dnsIP, "10.0.0.5", "10.0.0.6", "10.77.0.1", "100.64.0.1", "169.254.169.254", "172.16.0.9",
	"192.168.7.7", "168.63.129.16", "192.0.0.192", "0.1.2.3",
}

var world *internet

func TestMain(m *testing.M) {
	if os.Getenv(rigEnv) == "" {
		os.Exit(runInside())
	}
	os.Exit(runTests(m))
}

// runInside runs this test binary again in namespaces of its own.
func runInside() int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "the tests of pkg/network make network namespaces: run them as root, such as `sudo -E env PATH=$PATH make test`")
		return 1
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), rigEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func runTests(m *testing.M) int {
	var err error
	if world, err = makeWorld(); err != nil {
		fmt.Fprintln(os.Stderr, "making the test's network:", err)
		return 1
	}
	code := m.Run()
	world.close()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// internet is what lies behind the host's uplink.
type internet struct {
	path    string
	sniff   *sniffer
	closers []func() error
	wg      sync.WaitGroup
}

func makeWorld() (*internet, error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, err
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return nil, err
	}
	w := &internet{path: netnsDir + "/internet"}
	home, err := netns.Get()
	if err != nil {
		return nil, err
	}
	defer home.Close()
	ns, err := makeNamespace(w.path, home)
	if err != nil {
		return nil, err
	}
	defer ns.close()
	if err := connect(ns); err != nil {
		return nil, err
	}
	return w, errors.Join(w.listen(), w.serveDNS())
}

// connect gives the host its uplink and the internet its addresses.
func connect(ns *namespace) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = "up0", testMTU
	up := &netlink.Veth{LinkAttrs: attrs, PeerName: "in0", PeerMTU: testMTU, PeerNamespace: netlink.NsFd(int(ns.fd))}
	err = errors.Join(netlink.LinkSetUp(lo), netlink.LinkAdd(up),
		netlink.AddrAdd(up, &netlink.Addr{IPNet: ipNet(netip.MustParseAddr(hostAddr), 24)}), netlink.LinkSetUp(up),
		netlink.RouteAdd(&netlink.Route{LinkIndex: up.Index, Gw: net.ParseIP(routerIP)}))
	if err != nil {
		return err
	}
	in, err := ns.handle.LinkByName("in0")
	if err != nil {
		return err
	}
	inLo, err := ns.handle.LinkByName("lo")
	if err != nil {
		return err
	}
	err = errors.Join(ns.handle.AddrAdd(in, &netlink.Addr{IPNet: ipNet(netip.MustParseAddr(routerIP), 24)}), ns.handle.LinkSetUp(in))
	for _, a := range worldAddrs {
		err = errors.Join(err, ns.handle.AddrAdd(inLo, &netlink.Addr{IPNet: ipNet(netip.MustParseAddr(a), 32)}))
	}
	// So that what comes in could come in: the pools are routed to the host.
	for _, p := range []string{"10.213.0.0/16", "10.214.0.0/16"} {
		err = errors.Join(err, ns.handle.RouteAdd(&netlink.Route{LinkIndex: in.Attrs().Index, Gw: net.ParseIP(hostAddr), Dst: cidr(p)}))
	}
	return err
}

func cidr(s string) *net.IPNet {
	_, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	return n
}

func (w *internet) listen() error {
	return inside(w.path, func() error {
		l, err := net.Listen("tcp4", fmt.Sprintf(":%d", tcpPort))
		if err != nil {
			return err
		}
		w.closers = append(w.closers, l.Close)
		w.wg.Go(func() { echo(l) })
		w.sniff, err = newSniffer()
		if err == nil {
			w.closers = append(w.closers, w.sniff.close)
		}
		return err
	})
}

// echo sends back what every connection says.
func echo(l net.Listener) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer c.Close()
			b := make([]byte, 64)
			for {
				if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
					return
				}
				n, err := c.Read(b)
				if err != nil {
					return
				}
				if _, err := c.Write(b[:n]); err != nil {
					return
				}
			}
		})
	}
}

// serveDNS answers for the zone "test.".
func (w *internet) serveDNS() error {
	zone := map[string][]string{
		"good.test.":   {"good.test. 60 IN A " + publicIP},
		"evil.test.":   {"evil.test. 60 IN A 10.0.0.5"},
		"meta.test.":   {"meta.test. 60 IN A 169.254.169.254"},
		"mixed.test.":  {"mixed.test. 60 IN A 10.0.0.5", "mixed.test. 60 IN A " + publicIP},
		"alias.test.":  {"alias.test. 60 IN CNAME evil.test.", "evil.test. 60 IN A 10.0.0.5"},
		"mapped.test.": {"mapped.test. 60 IN AAAA ::ffff:10.0.0.5"},
		"nat64.test.":  {"nat64.test. 60 IN AAAA 64:ff9b::a00:5"},
		"ula.test.":    {"ula.test. 60 IN AAAA fd00::5"},
		"pool.test.":   {"pool.test. 60 IN A 10.213.0.6"},
		"hint.test.":   {"hint.test. 60 IN HTTPS 1 . ipv4hint=10.0.0.5"},
		"six.test.":    {"six.test. 60 IN AAAA 2001:db8::1"},
		"text.test.":   {"text.test. 60 IN TXT \"10.0.0.5\""},
	}
	handler := dns.HandlerFunc(func(rw dns.ResponseWriter, q *dns.Msg) {
		if q.Question[0].Name == "slow.test." {
			return // never
		}
		m := new(dns.Msg).SetReply(q)
		lines, ok := zone[q.Question[0].Name]
		if q.Question[0].Name == "big.test." {
			ok = true
			for i := range 100 {
				lines = append(lines, fmt.Sprintf("big.test. 60 IN A 198.51.100.%d", i+1))
			}
		}
		if !ok {
			m.Rcode = dns.RcodeNameError
		}
		for _, l := range lines {
			rr, err := dns.NewRR(l)
			if err != nil {
				panic(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		if rw.RemoteAddr().Network() == "udp" {
			m.Truncate(512)
		}
		_ = rw.WriteMsg(m)
	})
	var servers []*dns.Server
	err := inside(w.path, func() error {
		pc, err := net.ListenPacket("udp4", dnsIP+":53")
		if err != nil {
			return err
		}
		l, err := net.Listen("tcp4", dnsIP+":53")
		servers = []*dns.Server{{PacketConn: pc, Handler: handler}, {Listener: l, Handler: handler}}
		return err
	})
	for _, s := range servers {
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		w.wg.Go(func() { _ = s.ActivateAndServe() })
		<-up
		w.closers = append(w.closers, s.Shutdown)
	}
	return err
}

func (w *internet) close() {
	for _, c := range w.closers {
		_ = c()
	}
	w.wg.Wait()
}

// inside calls fn on a thread in the network namespace at path. Sockets that
// fn opens stay there.
func inside(path string, fn func() error) error {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	return elsewhere.In(ns, fn)
}

// open opens a Network for the test.
func open(t testing.TB, cfg Config) *Network {
	t.Helper()
	n, err := Open(t.Context(), complete(t, cfg))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !n.home.IsOpen() {
			return // by the test
		}
		detachAll(t, n)
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func complete(t testing.TB, cfg Config) Config {
	if cfg.Prefix == "" {
		cfg.Prefix = "abcd"
	}
	if cfg.Resolvers == nil {
		cfg.Resolvers = []string{dnsIP + ":53"}
	}
	cfg.Log = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	return cfg
}

func detachAll(t testing.TB, n *Network) {
	ctx := context.Background()
	ids, err := n.List(ctx)
	if err != nil {
		t.Error(err)
	}
	for _, id := range ids {
		if err := n.Detach(ctx, id); err != nil {
			t.Error(err)
		}
	}
}

// testWriter logs to the test. Nothing is written after the test: Close waits.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(string(b[:len(b)-1]))
	return len(b), nil
}

// id makes the i-th sandbox ID of a prefix.
func id(prefix string, i int) string {
	const letters = "abcdefghijklmnopqrstuvwxyz234567"
	b := []byte("aaaaaaaa")
	for k := len(b) - 1; i > 0; k-- {
		b[k] = letters[i%32]
		i /= 32
	}
	return prefix + string(b)
}

func attach(t testing.TB, n *Network, index int, p Policy) Endpoint {
	t.Helper()
	e, err := n.Attach(t.Context(), id(n.cfg.Prefix, index), index, p)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// reach connects from the namespace and says something that must come back.
func reach(path, address string, wait time.Duration) error {
	return inside(path, func() error {
		c, err := net.DialTimeout("tcp4", address, wait)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(wait)); err != nil {
			return err
		}
		if _, err := c.Write([]byte("hello")); err != nil {
			return err
		}
		_, err = c.Read(make([]byte, 5))
		return err
	})
}

// send sends a datagram from the namespace, without waiting for anything.
func send(path, address, payload string) error {
	return inside(path, func() error {
		c, err := net.Dial("udp4", address)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte(payload))
		return err
	})
}

// ping sends an ICMP echo from the namespace.
func ping(path, address string, wait time.Duration) error {
	return inside(path, func() error {
		c, err := net.DialTimeout("ip4:icmp", address, wait)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.Write([]byte{8, 0, 0xf7, 0xfd, 0, 1, 0, 1}); err != nil {
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return err
		}
		for b := make([]byte, 64); ; {
			n, err := c.Read(b)
			if err != nil {
				return err
			}
			const header, echoReply = 20, 0 // a raw socket hears others' requests too
			if n > header && b[header] == echoReply && net.IP(b[12:16]).String() == address {
				return nil
			}
		}
	})
}

func at(addr string, port int) string { return net.JoinHostPort(addr, fmt.Sprint(port)) }

// closed checks that nothing gets from the namespaces to any address: TCP, UDP
// and ICMP at once, so that the waiting is done once.
func closed(t *testing.T, path string, addrs ...string) {
	t.Helper()
	mark := fmt.Sprintf("c%07d", marks.Add(1))
	var wg sync.WaitGroup
	for _, a := range addrs {
		for what, try := range map[string]func() error{
			"TCP":  func() error { return reach(path, at(a, tcpPort), quickTime) },
			"ICMP": func() error { return ping(path, a, quickTime) },
		} {
			wg.Go(func() {
				if try() == nil {
					t.Errorf("%s to %s got through", what, a)
				}
			})
		}
		if err := send(path, at(a, 9999), mark); err != nil && !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("sending to %s: %v", a, err)
		}
	}
	wg.Wait()
	if got := world.sniff.mark(mark); got != 0 {
		t.Errorf("%d datagrams got through to %v", got, addrs)
	}
}

var marks atomic.Int64

// unseen checks that no packet at all arrived at addresses of the internet.
func unseen(t *testing.T, before map[string]int, addrs ...string) {
	t.Helper()
	for _, a := range addrs {
		if got := world.sniff.to(a) - before[a]; got != 0 {
			t.Errorf("%d packets arrived at %s", got, a)
		}
	}
}

func counts(addrs ...string) map[string]int {
	m := map[string]int{}
	for _, a := range addrs {
		m[a] = world.sniff.to(a)
	}
	return m
}

// eventually waits until ok, looking every few milliseconds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// census lists everything on this host that a Network could leave.
func census(t testing.TB) []string {
	t.Helper()
	var out []string
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		out = append(out, "link "+l.Attrs().Name)
	}
	files, err := os.ReadDir(netnsDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		out = append(out, "netns "+f.Name())
	}
	rules, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s (apt-get install nftables)", err, rules)
	}
	out = append(out, "nft "+string(rules))
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], netnsPath("abcd")) {
			out = append(out, "mount "+f[4])
		}
	}
	slices.Sort(out)
	return out
}
