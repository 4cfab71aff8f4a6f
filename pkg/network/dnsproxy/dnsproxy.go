// Package dnsproxy forwards the DNS queries of sandboxes to the host's resolvers
// and keeps addresses that a sandbox may not reach out of the answers: a public
// name cannot be rebound to a private address.
//
// It serves UDP and TCP on one address, answers only clients that the caller
// knows, and bounds what one client and all of them have in flight.
package dnsproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
)

const (
	perClient      = 64  // queries of one client in flight
	inFlight       = 512 // queries of all clients in flight
	connsPerClient = 16  // TCP connections of one client
	queryTime      = 5 * time.Second
	tryTime        = 2 * time.Second // for one resolver, while there are others
	idleTime       = 10 * time.Second
)

// Config says where to listen, whom to ask and what to tell.
type Config struct {
	Address   netip.AddrPort
	Upstreams []string // host:port; those of the host's resolv.conf when empty
	// Permit returns which addresses a client may see in answers; ok is false
	// for a client that is not served.
	Permit func(client netip.Addr) (visible func(netip.Addr) bool, ok bool)
	Log    *slog.Logger
}

// Proxy is a running forwarder.
type Proxy struct {
	cfg       Config
	upstreams func() ([]string, error)
	servers   []*dns.Server
	wg        sync.WaitGroup
	ctx       context.Context // of the queries in flight; ends with the proxy
	stop      context.CancelCauseFunc

	mu     sync.Mutex
	total  int
	client map[netip.Addr]int
}

var errClosed = errors.New("the DNS forwarder was closed")

// Listen starts to serve. ctx gives values only; Close ends the proxy.
func Listen(ctx context.Context, cfg Config) (*Proxy, error) {
	p := &Proxy{cfg: cfg, client: map[netip.Addr]int{}, upstreams: (&resolvConf{path: resolvConfPath}).servers}
	if len(cfg.Upstreams) > 0 {
		p.upstreams = func() ([]string, error) { return cfg.Upstreams, nil }
	}
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(cfg.Address))
	if err != nil {
		return nil, listenError(cfg.Address, err)
	}
	tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(cfg.Address))
	if err != nil {
		_ = udp.Close()
		return nil, listenError(cfg.Address, err)
	}
	p.ctx, p.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	idle := func() time.Duration { return idleTime }
	p.servers = []*dns.Server{
		{PacketConn: udp, Handler: p, UDPSize: dns.DefaultMsgSize},
		{Listener: &limiter{Listener: tcp, max: connsPerClient, open: map[netip.Addr]int{}}, Handler: p, IdleTimeout: idle},
	}
	p.serve()
	return p, nil
}

// serve starts the servers and waits until they are up: only then may they be
// shut down.
func (p *Proxy) serve() {
	var up sync.WaitGroup
	for _, s := range p.servers {
		up.Add(1)
		s.NotifyStartedFunc = up.Done
		p.wg.Go(func() {
			if err := s.ActivateAndServe(); err != nil {
				p.cfg.Log.Error("DNS forwarder stopped", "err", err)
			}
		})
	}
	up.Wait()
}

func listenError(at netip.AddrPort, err error) error {
	if errors.Is(err, unix.EADDRINUSE) {
		return innerdock.Errorf(innerdock.CodeConflict,
			"port %d of %v, the sandboxes' DNS, is taken by another DNS server of this host; make that one listen on its own addresses only (`ss -lnptu sport = :%d` shows it): %w",
			at.Port(), at.Addr(), at.Port(), err)
	}
	return innerdock.Internal(err, fmt.Sprintf("listening on %v for the sandboxes' DNS", at))
}

// Close stops serving and waits for the queries in flight, which it cancels.
func (p *Proxy) Close() error {
	p.stop(errClosed)
	var errs []error
	for _, s := range p.servers {
		errs = append(errs, s.Shutdown())
	}
	p.wg.Wait()
	return errors.Join(errs...)
}

// ServeDNS answers one query.
func (p *Proxy) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	client := addrOf(w.RemoteAddr())
	visible, ok := p.cfg.Permit(client)
	if !ok || !ordinary(query) {
		p.reply(w, query, failure(query, dns.RcodeRefused, ""))
		return
	}
	if !p.enter(client) {
		p.reply(w, query, failure(query, dns.RcodeServerFailure, "too many queries in flight"))
		return
	}
	defer p.leave(client)
	ctx, cancel := context.WithTimeout(p.ctx, queryTime)
	defer cancel()
	answer, err := p.ask(ctx, query, w.RemoteAddr().Network())
	if err != nil {
		p.cfg.Log.Debug("DNS query failed", "client", client, "name", query.Question[0].Name, "err", err)
		p.reply(w, query, failure(query, dns.RcodeServerFailure, "no resolver of the host answered"))
		return
	}
	p.reply(w, query, filter(query, answer, visible))
}

// ordinary refuses what a stub resolver never asks: updates, zone transfers.
func ordinary(q *dns.Msg) bool {
	if q.Opcode != dns.OpcodeQuery || q.Response || len(q.Question) != 1 {
		return false
	}
	t := q.Question[0].Qtype
	return t != dns.TypeAXFR && t != dns.TypeIXFR
}

func (p *Proxy) enter(client netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.total >= inFlight || p.client[client] >= perClient {
		return false
	}
	p.total++
	p.client[client]++
	return true
}

func (p *Proxy) leave(client netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total--
	if p.client[client]--; p.client[client] == 0 {
		delete(p.client, client)
	}
}

// ask tries the resolvers in turn, by the client's own transport.
func (p *Proxy) ask(ctx context.Context, query *dns.Msg, network string) (*dns.Msg, error) {
	list, err := p.upstreams()
	if err != nil {
		return nil, err
	}
	c := &dns.Client{Net: network, UDPSize: dns.MaxMsgSize, Timeout: queryTime}
	var errs []error
	for i, server := range list {
		limit := tryTime
		if i == len(list)-1 {
			limit = queryTime
		}
		answer, err := exchange(ctx, c, query, server, limit)
		if err == nil && answer.Rcode != dns.RcodeServerFailure && answer.Rcode != dns.RcodeRefused || err == nil && i == len(list)-1 {
			return answer, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(append(errs, context.Cause(ctx), errors.New("no answer"))...)
}

func exchange(ctx context.Context, c *dns.Client, query *dns.Msg, server string, limit time.Duration) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	q := query.Copy()
	q.Id = dns.Id() // not the client's choice
	conn, err := c.DialContext(ctx, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })() // the exchange itself heeds deadlines alone
	answer, _, err := c.ExchangeWithConnContext(ctx, q, conn)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", server, err)
	}
	if len(answer.Question) != 1 || answer.Question[0] != q.Question[0] {
		return nil, fmt.Errorf("%s: the answer is to another question", server)
	}
	answer.Id = query.Id
	return answer, nil
}

// reply sends m; over UDP, no more of it than the client takes.
func (p *Proxy) reply(w dns.ResponseWriter, query, m *dns.Msg) {
	if w.RemoteAddr().Network() == "udp" {
		size := dns.MinMsgSize
		if opt := query.IsEdns0(); opt != nil {
			size = max(size, int(opt.UDPSize()))
		}
		m.Truncate(min(size, dns.DefaultMsgSize))
	}
	if err := w.WriteMsg(m); err != nil {
		p.cfg.Log.Debug("DNS answer not sent", "client", w.RemoteAddr(), "err", err)
	}
}

// failure answers with a code and, for a client that understands it, why.
func failure(query *dns.Msg, code int, why string) *dns.Msg {
	m := new(dns.Msg).SetRcode(query, code)
	m.RecursionAvailable = true
	if opt := query.IsEdns0(); opt != nil {
		m.SetEdns0(dns.DefaultMsgSize, opt.Do())
		if why != "" {
			info := dns.ExtendedErrorCodeOther
			if code == dns.RcodeRefused {
				info = dns.ExtendedErrorCodeBlocked
			}
			m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_EDE{InfoCode: info, ExtraText: why})
		}
	}
	return m
}

func addrOf(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
