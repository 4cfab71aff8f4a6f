package network

import (
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// ask asks the DNS forwarder from the sandbox.
func ask(t *testing.T, e Endpoint, network, name string, kind uint16, wait time.Duration) (*dns.Msg, error) {
	t.Helper()
	var conn net.Conn
	if err := inside(e.NetNS, func() (err error) {
		conn, err = net.DialTimeout(network, at(e.Service.String(), dnsPort), patience)
		return err
	}); err != nil {
		return nil, err
	}
	defer conn.Close()
	q := new(dns.Msg).SetQuestion(name, kind)
	q.SetEdns0(1232, false)
	c := dns.Client{Net: network, Timeout: wait}
	answer, _, err := c.ExchangeWithConn(q, &dns.Conn{Conn: conn, UDPSize: 1232})
	return answer, err
}

func values(m *dns.Msg) []string {
	var out []string
	for _, rr := range m.Answer {
		if a, ok := rr.(*dns.A); ok {
			out = append(out, a.A.String())
		}
	}
	return out
}

func TestDNS(t *testing.T) {
	n := open(t, Config{})
	plain, wide, shut := attach(t, n, 1, Policy{}), attach(t, n, 2, Policy{Allow: prefixes([]string{"10.0.0.0/24"})}), attach(t, n, 3, Policy{Block: true})
	tests := []struct {
		name  string
		from  Endpoint
		ask   string
		kind  uint16
		code  int
		addrs []string
	}{
		{"public", plain, "good.test.", dns.TypeA, dns.RcodeSuccess, []string{publicIP}},
		{"blocked sandboxes have DNS", shut, "good.test.", dns.TypeA, dns.RcodeSuccess, []string{publicIP}},
		{"unknown", plain, "none.test.", dns.TypeA, dns.RcodeNameError, nil},
		{"text", plain, "text.test.", dns.TypeTXT, dns.RcodeSuccess, nil},
		{"public IPv6", plain, "six.test.", dns.TypeAAAA, dns.RcodeSuccess, nil},
		{"rebinding", plain, "evil.test.", dns.TypeA, dns.RcodeRefused, nil},
		{"rebinding, blocked", shut, "evil.test.", dns.TypeA, dns.RcodeRefused, nil},
		{"rebinding by alias", plain, "alias.test.", dns.TypeA, dns.RcodeRefused, nil},
		{"metadata", plain, "meta.test.", dns.TypeA, dns.RcodeRefused, nil},
		{"mixed", plain, "mixed.test.", dns.TypeA, dns.RcodeSuccess, []string{publicIP}},
		{"mapped", plain, "mapped.test.", dns.TypeAAAA, dns.RcodeRefused, nil},
		{"NAT64", plain, "nat64.test.", dns.TypeAAAA, dns.RcodeRefused, nil},
		{"unique local", plain, "ula.test.", dns.TypeAAAA, dns.RcodeRefused, nil},
		{"hint", plain, "hint.test.", dns.TypeHTTPS, dns.RcodeRefused, nil},
		{"allowed", wide, "evil.test.", dns.TypeA, dns.RcodeSuccess, []string{"10.0.0.5"}},
		{"allowed and not", wide, "meta.test.", dns.TypeA, dns.RcodeRefused, nil},
		{"a neighbour, allowed or not", wide, "pool.test.", dns.TypeA, dns.RcodeRefused, nil},
	}
	for _, test := range tests {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(test.name+"/"+network, func(t *testing.T) {
				m, err := ask(t, test.from, network, test.ask, test.kind, patience)
				if err != nil {
					t.Fatal(err)
				}
				if m.Rcode != test.code || !slices.Equal(values(m), test.addrs) {
					t.Errorf("%s %v, want %s %v", dns.RcodeToString[m.Rcode], values(m), dns.RcodeToString[test.code], test.addrs)
				}
			})
		}
	}
}

func TestDNSAnswersThatAreLong(t *testing.T) {
	n := open(t, Config{})
	e := attach(t, n, 1, Policy{})
	if m, err := ask(t, e, "udp", "big.test.", dns.TypeA, patience); err != nil || !m.Truncated {
		t.Errorf("over UDP: truncated %v, %v", m != nil && m.Truncated, err)
	}
	if m, err := ask(t, e, "tcp", "big.test.", dns.TypeA, patience); err != nil || len(m.Answer) != 100 {
		t.Errorf("over TCP: %v", err)
	}
}

func TestDNSRefusesStrangers(t *testing.T) {
	n := open(t, Config{})
	q := new(dns.Msg).SetQuestion("good.test.", dns.TypeA)
	m, err := dns.Exchange(q, at(n.ServiceAddr().String(), dnsPort)) // the host itself
	if err != nil || m.Rcode != dns.RcodeRefused {
		t.Errorf("%v, %v", m, err)
	}
}

// One sandbox that floods a resolver that does not answer leaves room for others.
func TestDNSFlood(t *testing.T) {
	n := open(t, Config{})
	bad, good := attach(t, n, 1, Policy{}), attach(t, n, 2, Policy{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	turned := 0
	for range 200 {
		wg.Go(func() {
			if m, err := ask(t, bad, "udp", "slow.test.", dns.TypeA, 3*time.Second); err == nil && m.Rcode == dns.RcodeServerFailure {
				mu.Lock()
				defer mu.Unlock()
				turned++
			}
		})
	}
	wg.Wait()
	if turned < 100 {
		t.Errorf("%d of 200 queries were turned away, want about 136", turned)
	}
	if m, err := ask(t, good, "udp", "good.test.", dns.TypeA, patience); err != nil || m.Rcode != dns.RcodeSuccess {
		t.Errorf("the neighbour: %v, %v", m, err)
	}
	var conns []net.Conn
	must(t, inside(bad.NetNS, func() error {
		for range 100 {
			c, err := net.DialTimeout("tcp4", at(bad.Service.String(), dnsPort), patience)
			if err != nil {
				return err
			}
			conns = append(conns, c)
		}
		return nil
	}))
	alive := 0
	for _, c := range conns {
		must(t, c.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
		if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			alive++
		}
		_ = c.Close()
	}
	if alive > 16 {
		t.Errorf("%d TCP connections of one sandbox are open", alive)
	}
}
