package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"

	"github.com/innerdock/innerdock"
)

// dropped is the sum of the drop counters of a chain.
func dropped(t *testing.T, chain string) int {
	t.Helper()
	out, err := exec.Command("nft", "list", "chain", "inet", "innerdock_abcd", chain).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	sum := 0
	for _, m := range regexp.MustCompile(`packets (\d+) `).FindAllSubmatch(out, -1) {
		n, err := strconv.Atoi(string(m[1]))
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// kill leaves what a killed server leaves: everything that is not the process's.
func kill(t *testing.T, n *Network) {
	t.Helper()
	if err := n.stop(); err != nil {
		t.Error(err)
	}
	n.handle.Close()
	_ = n.home.Close()
}

func TestNothingIsLeft(t *testing.T) {
	before := census(t)
	n, err := Open(t.Context(), complete(t, Config{}))
	if err != nil {
		t.Fatal(err)
	}
	quiet := census(t)
	const rounds, width = 10, 20 // 200 cycles
	for r := range rounds {
		var wg sync.WaitGroup
		for i := range width {
			wg.Go(func() {
				index := r*width + i + 1
				p := []Policy{{}, {Block: true}, {Allow: prefixes([]string{"10.0.0.0/8", "192.168.7.7/32"})}}[index%3]
				if _, err := n.Attach(t.Context(), id("abcd", index), index, p); err != nil {
					t.Error(err)
				}
				if err := n.Detach(t.Context(), id("abcd", index)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	same(t, "after 200 cycles", quiet, census(t))
	if len(n.byAddr)+len(n.busy)+len(n.firewall.entries) != 0 {
		t.Errorf("remembered: %v, %v, %v", n.byAddr, n.busy, n.firewall.entries)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	same(t, "after Close", before, census(t))
}

var counters = regexp.MustCompile(`packets \d+ bytes \d+`)

func same(t *testing.T, when string, want, got []string) {
	t.Helper()
	w, g := strings.Join(want, "\n"), strings.Join(got, "\n")
	if counters.ReplaceAllString(w, "") != counters.ReplaceAllString(g, "") {
		t.Errorf("%s there is\n%s\nwant\n%s", when, g, w)
	}
}

// The first `ip netns add` of a machine makes the directory of names a mount;
// names that were there before must still go.
func TestNamesOutliveTheToolOfTheHost(t *testing.T) {
	n := open(t, Config{})
	attach(t, n, 1, Policy{})
	shell(t, "ip netns add other")
	defer shell(t, "ip netns del other")
	if err := n.Detach(t.Context(), id(n.cfg.Prefix, 1)); err != nil {
		t.Error(err)
	}
}

func TestPartialStates(t *testing.T) {
	states := map[string]func(t *testing.T, n *Network, id string){
		"nothing": func(*testing.T, *Network, string) {},
		"file":    func(t *testing.T, n *Network, id string) { touch(t, netnsPath(id)) },
		"namespace": func(t *testing.T, n *Network, id string) {
			ns, err := makeNamespace(netnsPath(id), n.home)
			if err != nil {
				t.Fatal(err)
			}
			ns.close()
		},
		"namespace and rules": func(t *testing.T, n *Network, id string) {
			attach(t, n, 1, Policy{})
			must(t, deleteLink(n.handle, hostLink(id)))
		},
		"rules": func(t *testing.T, n *Network, id string) {
			attach(t, n, 1, Policy{Allow: prefixes([]string{"10.0.0.5/32"})})
			must(t, deleteLink(n.handle, hostLink(id)))
			must(t, removeNamespace(netnsPath(id)))
		},
		"no rules": func(t *testing.T, n *Network, id string) {
			attach(t, n, 1, Policy{})
			must(t, n.firewall.remove(n.pool.guest(1)))
		},
		"interface": func(t *testing.T, n *Network, id string) {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = hostLink(id)
			must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "other"}))
		},
		"all": func(t *testing.T, n *Network, id string) { attach(t, n, 1, Policy{Block: true}) },
	}
	for name, make := range states {
		t.Run(name, func(t *testing.T) {
			before := census(t)
			sandbox := id("abcd", 1)
			first, err := Open(t.Context(), complete(t, Config{}))
			if err != nil {
				t.Fatal(err)
			}
			make(t, first, sandbox)
			kill(t, first)

			n := open(t, Config{})
			ids, err := n.List(t.Context())
			if want := name != "nothing"; err != nil || slices.Contains(ids, sandbox) != want {
				t.Errorf("List: %v, %v", ids, err)
			}
			e := attach(t, n, 1, Policy{}) // over what is left
			if err := reach(e.NetNS, at(publicIP, tcpPort), patience); err != nil {
				t.Errorf("after Attach: %v", err)
			}
			must(t, n.Detach(t.Context(), sandbox))

			make(t, n, sandbox)
			must(t, n.Detach(t.Context(), sandbox))
			must(t, n.Detach(t.Context(), sandbox))
			must(t, n.Close())
			same(t, "in the end", before, census(t))
		})
	}
}

func touch(t *testing.T, path string) {
	t.Helper()
	must(t, os.MkdirAll(netnsDir, 0o755))
	must(t, os.WriteFile(path, nil, 0o444))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A sandbox that lives through the death and the return of its server keeps its
// connections and never a moment without its rules.
func TestRestart(t *testing.T) {
	n, err := Open(t.Context(), complete(t, Config{}))
	must(t, err)
	allow := Policy{Allow: prefixes([]string{"10.77.0.1/32", hostAddr + "/32"})}
	e, shut := attach(t, n, 1, allow), attach(t, n, 2, Policy{Block: true})
	all := append(slices.Clone(private), publicIP)
	before := counts(private...)

	var live net.Conn
	must(t, inside(e.NetNS, func() (err error) {
		live, err = net.DialTimeout("tcp4", at(publicIP, tcpPort), time.Second)
		return err
	}))
	defer live.Close()
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	flood := func(path string, addrs []string) {
		wg.Go(func() {
			_ = inside(path, func() error {
				for i := 0; ctx.Err() == nil; i++ {
					if c, err := net.Dial("udp4", at(addrs[i%len(addrs)], 7777)); err == nil {
						_, _ = c.Write([]byte("leak-leak"))
						_ = c.Close()
					}
				}
				return nil
			})
		})
	}
	flood(e.NetNS, private)
	flood(shut.NetNS, all)
	for range 10 {
		kill(t, n)
		n, err = Open(t.Context(), complete(t, Config{}))
		must(t, err)
		must(t, live.SetDeadline(time.Now().Add(patience)))
		if _, err := live.Write([]byte("still")); err != nil {
			t.Fatal(err)
		}
		if _, err := live.Read(make([]byte, 5)); err != nil {
			t.Fatal("a connection did not survive:", err)
		}
	}
	stop()
	wg.Wait()
	unseen(t, before, private...)
	if got := world.sniff.mark("leak-lea"); got != 0 {
		t.Errorf("%d datagrams leaked", got)
	}
	if err := reach(e.NetNS, at("10.77.0.1", tcpPort), patience); err != nil {
		t.Error("the allow list was lost:", err)
	}
	if got, ok := n.SandboxOf(e.Address.Addr()); !ok || got != id("abcd", 1) {
		t.Errorf("SandboxOf: %q, %v", got, ok)
	}
	for i, p := range []Policy{allow, {Block: true}} {
		again, err := n.Adopt(t.Context(), id("abcd", i+1), i+1, p)
		must(t, err)
		if want := []Endpoint{e, shut}[i]; again != want {
			t.Errorf("Adopt: %+v, want %+v", again, want)
		}
	}
	must(t, n.Close()) // with sandboxes attached: the rules stay
	closed(t, shut.NetNS, publicIP)
	open(t, Config{})
}

func TestAdoptChangesThePolicy(t *testing.T) {
	n := open(t, Config{})
	e := attach(t, n, 1, Policy{Allow: prefixes([]string{"10.0.0.5/32"})})
	must(t, reach(e.NetNS, at("10.0.0.5", tcpPort), patience))
	for _, p := range []Policy{{Allow: prefixes([]string{"10.0.0.6/32"})}, {Block: true}, {}} {
		if _, err := n.Adopt(t.Context(), id("abcd", 1), 1, p); err != nil {
			t.Fatal(err)
		}
		closed(t, e.NetNS, "10.0.0.5")
		for a, want := range map[string]bool{"10.0.0.6": len(p.Allow) > 0, publicIP: !p.Block} {
			if got := reach(e.NetNS, at(a, tcpPort), waitFor(want)) == nil; got != want {
				t.Errorf("%+v: %s reachable %v, want %v", p, a, got, want)
			}
		}
	}
}

func TestAdoptNeedsALiveSandbox(t *testing.T) {
	n := open(t, Config{})
	attach(t, n, 1, Policy{})
	for name, index := range map[string]int{id("abcd", 2): 2, id("abcd", 1): 3} {
		if _, err := n.Adopt(t.Context(), name, index, Policy{}); innerdock.CodeOf(err) != innerdock.CodeNotFound {
			t.Errorf("Adopt(%s, %d): %v", name, index, err)
		}
	}
}

// Its sandboxes keep a server from another pool.
func TestAdoptNeedsTheSamePool(t *testing.T) {
	n := open(t, Config{})
	attach(t, n, 1, Policy{})
	must(t, n.Close())
	n = open(t, Config{Pool: netip.MustParsePrefix("10.99.0.0/20")})
	_, err := n.Adopt(t.Context(), id("abcd", 1), 1, Policy{})
	if innerdock.CodeOf(err) != innerdock.CodeConflict || !strings.Contains(err.Error(), "--pool") {
		t.Errorf("Adopt: %v", err)
	}
	must(t, n.Detach(t.Context(), id("abcd", 1)))
}

func TestUnknownInterfaceIsClosed(t *testing.T) {
	n := open(t, Config{})
	e := attach(t, n, 1, Policy{})
	must(t, n.firewall.remove(e.Address.Addr()))
	before := counts(publicIP)
	closed(t, e.NetNS, publicIP)
	unseen(t, before, publicIP)
}

func TestRulesComeBack(t *testing.T) {
	n := open(t, Config{})
	e := attach(t, n, 1, Policy{})
	if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	eventually(t, "the rules", func() bool {
		ok, err := n.firewall.intact()
		return ok && err == nil
	})
	must(t, reach(e.NetNS, at(publicIP, tcpPort), patience))
	closed(t, e.NetNS, "10.0.0.5", hostAddr)
	must(t, n.Detach(t.Context(), id("abcd", 1)))
}

// A reload of the host's network that takes the service interface, its address or
// its being up leaves sandboxes with DNS.
func TestTheServiceInterfaceComesBack(t *testing.T) {
	n := open(t, Config{})
	e := attach(t, n, 1, Policy{})
	link := linkPrefix + n.cfg.Prefix
	for _, command := range [][]string{
		{"ip", "link", "delete", link},
		{"ip", "address", "flush", "dev", link},
		{"ip", "link", "set", link, "down"},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", command, err, out)
		}
		for _, transport := range []string{"udp", "tcp"} {
			// A question that is asked too early may be lost, and is asked again.
			eventually(t, "DNS over "+transport+" after "+strings.Join(command, " "), func() bool {
				m, err := ask(t, e, transport, "good.test.", dns.TypeA, time.Second)
				return err == nil && slices.Equal(values(m), []string{publicIP})
			})
		}
	}
	must(t, n.Detach(t.Context(), id("abcd", 1)))
	must(t, n.Close())
	if _, err := net.InterfaceByName(link); err == nil {
		t.Errorf("%s is left", link)
	}
}

func TestTwoServers(t *testing.T) {
	a := open(t, Config{Prefix: "aaaa"})
	b := open(t, Config{Prefix: "bbbb", Pool: netip.MustParsePrefix("10.214.0.0/16"), Allow: prefixes([]string{"10.213.0.0/16"})})
	ea, eb := attach(t, a, 1, Policy{Allow: prefixes([]string{"10.0.0.0/8"})}), attach(t, b, 1, Policy{})
	for _, e := range []Endpoint{ea, eb} {
		if err := reach(e.NetNS, at(publicIP, tcpPort), patience); err != nil {
			t.Error(err)
		}
	}
	s := snifferIn(t, ea.NetNS)
	closed(t, eb.NetNS, ea.Address.Addr().String(), ea.Gateway.String(), ea.Service.String())
	closed(t, ea.NetNS, eb.Address.Addr().String(), eb.Gateway.String(), eb.Service.String())
	if got := s.source(eb.Address.Addr()); got != 0 {
		t.Errorf("%d packets between servers", got)
	}
	for n, want := range map[*Network]string{a: id("aaaa", 1), b: id("bbbb", 1)} {
		if ids, err := n.List(t.Context()); err != nil || !slices.Equal(ids, []string{want}) {
			t.Errorf("List: %v, %v; want %s", ids, err, want)
		}
	}
	must(t, a.Detach(t.Context(), id("aaaa", 1)))
	must(t, a.Close())
	if err := reach(eb.NetNS, at(publicIP, tcpPort), patience); err != nil {
		t.Error("after the other server closed:", err)
	}
}

func TestArguments(t *testing.T) {
	n := open(t, Config{Pool: netip.MustParsePrefix("10.213.0.0/28")}) // three sandboxes
	if n.Capacity() != 3 {
		t.Errorf("Capacity %d, want 3", n.Capacity())
	}
	attach(t, n, 3, Policy{})
	tests := []struct {
		id    string
		index int
		allow []netip.Prefix
		want  innerdock.Code
	}{
		{"abcdshort", 1, nil, innerdock.CodeInvalid},
		{"zzzzaaaaaaaa", 1, nil, innerdock.CodeInvalid},
		{"abcd/../../x", 1, nil, innerdock.CodeInvalid},
		{id("abcd", 1), 0, nil, innerdock.CodeInvalid},
		{id("abcd", 1), 4, nil, innerdock.CodeInvalid},
		{id("abcd", 1), 3, nil, innerdock.CodeConflict},
		{id("abcd", 1), 1, []netip.Prefix{{}}, innerdock.CodeInvalid},
		{id("abcd", 1), 1, prefixes([]string{"fd00::/8"}), innerdock.CodeUnsupported},
	}
	for _, test := range tests {
		_, err := n.Attach(t.Context(), test.id, test.index, Policy{Allow: test.allow})
		if innerdock.CodeOf(err) != test.want {
			t.Errorf("Attach(%q, %d, %v): %v, want %s", test.id, test.index, test.allow, err, test.want)
		}
	}
	if ids, err := n.List(t.Context()); err != nil || len(ids) != 1 {
		t.Errorf("left: %v, %v", ids, err)
	}
	if err := n.Detach(t.Context(), "../etc"); innerdock.CodeOf(err) != innerdock.CodeInvalid {
		t.Errorf("Detach: %v", err)
	}
}

func TestPoolConflicts(t *testing.T) {
	before := census(t)
	tests := []struct {
		pool string
		want innerdock.Code
		says string
	}{
		{"192.0.2.0/24", innerdock.CodeConflict, "up0"},
		{"10.55.0.0/16", innerdock.CodeConflict, "--pool"},
		{"10.213.0.1/16", innerdock.CodeInvalid, "10.213.0.0/16"},
		{"10.213.0.0/30", innerdock.CodeInvalid, "/29"},
		{"fd00::/64", innerdock.CodeInvalid, "IPv4"},
	}
	route := &netlink.Route{Dst: cidr("10.55.1.0/24"), Gw: net.ParseIP(routerIP)}
	must(t, netlink.RouteAdd(route))
	defer func() { must(t, netlink.RouteDel(route)) }()
	for _, test := range tests {
		_, err := Open(t.Context(), complete(t, Config{Pool: netip.MustParsePrefix(test.pool)}))
		if innerdock.CodeOf(err) != test.want || !strings.Contains(fmt.Sprint(err), test.says) {
			t.Errorf("%s: %v, want %s with %q", test.pool, err, test.want, test.says)
		}
	}
	l, err := net.ListenPacket("udp4", ":53")
	must(t, err)
	defer l.Close()
	if _, err := Open(t.Context(), complete(t, Config{})); innerdock.CodeOf(err) != innerdock.CodeConflict {
		t.Errorf("with port 53 taken: %v", err)
	}
	same(t, "after refusals", before, census(t))
}

func TestForwardPolicies(t *testing.T) {
	tests := map[string]struct{ set, show, unset string }{
		"iptables-nft": {
			"iptables-nft -P FORWARD DROP && iptables-nft -N DOCKER-USER && iptables-nft -A FORWARD -j DOCKER-USER",
			"iptables-nft -S FORWARD",
			"iptables-nft -P FORWARD ACCEPT && iptables-nft -F && iptables-nft -X && nft delete table ip filter",
		},
		"iptables-legacy": {"iptables-legacy -P FORWARD DROP", "iptables-legacy -S FORWARD", "iptables-legacy -P FORWARD ACCEPT"},
		"nft policy": {
			"nft add table inet fw && nft 'add chain inet fw f { type filter hook forward priority 0; policy drop; }'",
			"nft list table inet fw", "nft delete table inet fw",
		},
		"nft reject": {
			"nft add table inet fw && nft 'add chain inet fw f { type filter hook forward priority 0; }' && nft add rule inet fw f counter reject",
			"nft list table inet fw", "nft delete table inet fw",
		},
	}
	for name, test := range tests {
		for _, late := range []bool{false, true} {
			if late && name == "iptables-legacy" {
				continue // its changes are not announced
			}
			t.Run(fmt.Sprintf("%s/late=%v", name, late), func(t *testing.T) {
				var n *Network
				if late {
					n = open(t, Config{})
				}
				shell(t, test.set)
				defer shell(t, test.unset)
				rules := shell(t, test.show)
				if !late {
					if f := ForwardPolicy(t.Context(), "abcd"); f.OK || f.Mend == "" {
						t.Errorf("not found: %+v", f)
					}
					n = open(t, Config{})
				}
				e := attach(t, n, 1, Policy{})
				eventually(t, "the way out", func() bool { return reach(e.NetNS, at(publicIP, tcpPort), quickTime) == nil })
				closed(t, e.NetNS, "10.0.0.5")
				if err := reach(world.path, at(e.Address.Addr().String(), tcpPort), quickTime); err == nil {
					t.Error("the internet reached a sandbox")
				}
				if f := ForwardPolicy(t.Context(), "abcd"); !f.OK {
					t.Errorf("not open: %+v", f)
				}
				must(t, n.Detach(t.Context(), id("abcd", 1)))
				must(t, n.Close())
				after := shell(t, test.show)
				if strings.Contains(after, "idkabcd") || !late && counters.ReplaceAllString(after, "") != counters.ReplaceAllString(rules, "") {
					t.Errorf("after Close: %s, want %s", after, rules)
				}
			})
		}
	}
}

func shell(t *testing.T, line string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", line).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s (apt-get install nftables iptables)", line, err, out)
	}
	return string(out)
}

func TestMendingCommandsWork(t *testing.T) {
	shell(t, "nft add table inet fw && nft 'add chain inet fw f { type filter hook forward priority 0; policy drop; }'")
	defer shell(t, "nft delete table inet fw")
	f := ForwardPolicy(t.Context(), "")
	shell(t, f.Mend)
	if out := shell(t, "nft list table inet fw"); !strings.Contains(out, `iifname "idk*" accept`) {
		t.Errorf("after %q: %s", f.Mend, out)
	}
}

func TestDiagnose(t *testing.T) {
	before := census(t)
	for _, f := range Diagnose(t.Context(), Config{Resolvers: []string{"198.51.100.53:53"}}) {
		if !f.OK {
			t.Errorf("%+v", f)
		}
		t.Logf("%+v", f)
	}
	same(t, "after Diagnose", before, census(t))
	for _, f := range Diagnose(t.Context(), Config{Pool: netip.MustParsePrefix("192.0.2.0/24")}) {
		if f.Name == "address pool" && (f.OK || !strings.Contains(f.Mend, "--pool")) {
			t.Errorf("%+v", f)
		}
	}
}
