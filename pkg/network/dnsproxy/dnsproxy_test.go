package dnsproxy

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/innerdock/innerdock/test/freeport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func public(a netip.Addr) bool { return !a.Unmap().IsPrivate() && !a.IsLoopback() }

// serve starts a DNS server that answers every query with what handle makes.
func serve(t testing.TB, handle func(q *dns.Msg) *dns.Msg) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	up, done := make(chan struct{}), make(chan struct{})
	s := &dns.Server{PacketConn: pc, NotifyStartedFunc: func() { close(up) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		if m := handle(q); m != nil {
			_ = w.WriteMsg(m)
		}
	})}
	go func() {
		defer close(done)
		_ = s.ActivateAndServe()
	}()
	<-up
	t.Cleanup(func() {
		_ = s.Shutdown()
		<-done
	})
	return pc.LocalAddr().String()
}

func proxy(t testing.TB, upstreams ...string) string {
	t.Helper()
	address := netip.MustParseAddrPort(freeport.Address(t)) // for both transports
	p, err := Listen(t.Context(), Config{Address: address, Upstreams: upstreams, Log: slog.New(slog.DiscardHandler),
		Permit: func(netip.Addr) (func(netip.Addr) bool, bool) { return public, true }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return address.String()
}

func answer(lines ...string) func(q *dns.Msg) *dns.Msg {
	return func(q *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		for _, l := range lines {
			rr, err := dns.NewRR(l)
			if err != nil {
				panic(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		return m
	}
}

func TestNextResolver(t *testing.T) {
	broken := serve(t, func(q *dns.Msg) *dns.Msg { return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure) })
	liar := serve(t, func(q *dns.Msg) *dns.Msg {
		m := answer("x.test. 1 IN A 198.51.100.66")(q)
		m.Question[0].Name = "y.test."
		return m
	})
	good := serve(t, answer("x.test. 1 IN A 198.51.100.1"))
	at := proxy(t, broken, liar, good)
	m, err := dns.Exchange(new(dns.Msg).SetQuestion("x.test.", dns.TypeA), at)
	if err != nil || len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != "198.51.100.1" {
		t.Errorf("%v, %v", m, err)
	}
}

func TestNoResolver(t *testing.T) {
	dead := serve(t, func(*dns.Msg) *dns.Msg { return nil })
	at := proxy(t, dead)
	q := new(dns.Msg).SetQuestion("x.test.", dns.TypeA)
	q.SetEdns0(1232, false)
	c := dns.Client{Timeout: 6 * queryTime}
	m, took, err := c.Exchange(q, at)
	if err != nil || m.Rcode != dns.RcodeServerFailure || took > 3*queryTime {
		t.Errorf("%v, %v after %v", m, err, took)
	}
}

func TestUnusualQueries(t *testing.T) {
	at := proxy(t, serve(t, answer("x.test. 1 IN A 198.51.100.1")))
	transfer := new(dns.Msg).SetAxfr("test.")
	update := new(dns.Msg).SetUpdate("test.")
	notify := new(dns.Msg).SetNotify("test.")
	for name, q := range map[string]*dns.Msg{"transfer": transfer, "update": update, "notify": notify} {
		m, err := dns.Exchange(q, at)
		if err != nil || m.Rcode == dns.RcodeSuccess {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
}

func TestResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := &resolvConf{path: path}
	write("nameserver 192.0.2.53\nnameserver 2001:db8::53\noptions edns0\n")
	if got, err := r.servers(); err != nil || !slices.Equal(got, []string{"192.0.2.53:53", "[2001:db8::53]:53"}) {
		t.Errorf("%v, %v", got, err)
	}
	write("nameserver 198.51.100.153\n")
	if got, err := r.servers(); err != nil || !slices.Equal(got, []string{"198.51.100.153:53"}) {
		t.Errorf("after a change: %v, %v", got, err)
	}
	write("# none\n\n")
	if got, err := r.servers(); err == nil {
		t.Errorf("without a resolver: %v", got)
	}
}

// FuzzFilter gives the filter answers of a hostile resolver.
func FuzzFilter(f *testing.F) {
	q := new(dns.Msg).SetQuestion("x.test.", dns.TypeA)
	for _, lines := range [][]string{
		{"x.test. 1 IN A 10.0.0.5"}, {"x.test. 1 IN A 198.51.100.1"}, {"x.test. 1 IN AAAA ::ffff:10.0.0.5"},
		{"x.test. 1 IN HTTPS 1 . ipv4hint=10.0.0.5,198.51.100.1"}, {"x.test. 1 IN CNAME y.test.", "y.test. 1 IN A 192.168.0.1"},
	} {
		b, err := answer(lines...)(q).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(dns.Msg)
		if m.Unpack(b) != nil {
			return
		}
		out := filter(q, m, public)
		out.Truncate(dns.DefaultMsgSize)
		packed, err := out.Pack()
		if err != nil {
			return
		}
		again := new(dns.Msg)
		if again.Unpack(packed) != nil {
			return
		}
		for _, rr := range slices.Concat(again.Answer, again.Ns, again.Extra) {
			if !harmless(rr, public) {
				t.Errorf("got through: %v", rr)
			}
		}
	})
}
