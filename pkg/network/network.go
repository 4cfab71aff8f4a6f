package network

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/network/dnsproxy"
)

const (
	dnsPort             = 53
	defaultRegistryPort = 5000
	defaultMaxFlows     = 4096
)

// Config says how sandboxes are networked. Only Prefix is required.
type Config struct {
	Prefix       string         // the instance: the first 4 characters of its sandboxes' IDs
	Pool         netip.Prefix   // addresses, a /30 per sandbox; DefaultPool
	Allow        []netip.Prefix // opened to every sandbox, as in Policy.Allow
	RegistryPort uint16         // TCP port of the registry cache on ServiceAddr; 5000
	MaxFlows     int            // flows that one sandbox may have in the host's connection tracking; 4096
	Resolvers    []string       // upstream DNS servers, host:port; those of the host's resolv.conf
	Log          *slog.Logger   // discarded when nil
}

// Network is the network of one server's sandboxes. Its methods may be called
// concurrently; Attach and Detach of one sandbox exclude each other.
type Network struct {
	cfg      Config
	pool     pool
	log      *slog.Logger
	home     netns.NsHandle // the host's network namespace
	handle   *netlink.Handle
	firewall *firewall
	dns      *dnsproxy.Proxy
	guards   []*watcher

	undoForward func() error // takes back what was opened in others' chains

	mu     sync.RWMutex
	byAddr map[netip.Addr]entry // attached, or about to be
	busy   map[string]bool      // IDs that are being attached, adopted or detached
}

// Open makes the service interface, the rules and the DNS forwarder, claiming
// and repairing what a server with this prefix left when it was killed.
// Sandboxes that live keep their rules throughout. A pool that is used by
// something else on the host is a CodeConflict.
func Open(ctx context.Context, cfg Config) (_ *Network, err error) {
	cfg = cfg.withDefaults()
	p, err := newPool(cfg.Pool)
	if err != nil {
		return nil, err
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	n := &Network{cfg: cfg, pool: p, log: cfg.Log, firewall: newFirewall(cfg, p),
		home: netns.None(), byAddr: map[netip.Addr]entry{}, busy: map[string]bool{}}
	n.undoForward = func() error { return closeForward(context.WithoutCancel(ctx), n.firewall.lead) }
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if n.home, err = netns.Get(); err != nil {
		return nil, innerdock.Internal(err, "opening the host's network namespace")
	}
	if n.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER); err != nil {
		return nil, innerdock.Internal(err, "opening a netlink socket")
	}
	if err := n.claim(ctx); err != nil {
		return nil, err
	}
	if err := n.watch(context.WithoutCancel(ctx)); err != nil {
		return nil, innerdock.Internal(err, "watching the host's network")
	}
	n.dns, err = dnsproxy.Listen(ctx, dnsproxy.Config{
		Address: netip.AddrPortFrom(n.ServiceAddr(), dnsPort), Upstreams: cfg.Resolvers, Permit: n.permit, Log: n.log,
	})
	if err != nil {
		return nil, err
	}
	return n, nil
}

func (c Config) withDefaults() Config {
	if !c.Pool.IsValid() {
		c.Pool = DefaultPool
	}
	if c.RegistryPort == 0 {
		c.RegistryPort = defaultRegistryPort
	}
	if c.MaxFlows <= 0 {
		c.MaxFlows = defaultMaxFlows
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) check() error {
	if !prefixPattern.MatchString(c.Prefix) {
		return innerdock.Errorf(innerdock.CodeInvalid, "the instance prefix %q is not 4 characters of a-z and 2-7", c.Prefix)
	}
	return checkAllow(c.Allow)
}

// claim makes what all sandboxes share, from whatever is there.
func (n *Network) claim(ctx context.Context) error {
	lead := linkPrefix + n.cfg.Prefix
	if err := conflict(n.handle, n.cfg.Pool, lead); err != nil {
		if innerdock.CodeOf(err) == innerdock.CodeConflict {
			return err
		}
		return innerdock.Internal(err, "looking for other users of the address pool")
	}
	// The rules come before the interface and before forwarding.
	if err := n.firewall.load(); err != nil {
		n.log.Warn("cannot read the rules of an earlier server; live sandboxes are cut off until they are adopted", "err", err)
	}
	if err := n.firewall.reset(); err != nil {
		return innerdock.Internal(err, "writing the packet filter's rules (is nf_tables in this kernel?)")
	}
	if err := n.remember(); err != nil {
		return innerdock.Internal(err, "looking for sandboxes of an earlier server")
	}
	if err := makeServiceLink(n.handle, lead, n.ServiceAddr()); err != nil {
		return innerdock.Internal(err, "making the service interface")
	}
	changed, err := enableForwarding()
	if err != nil {
		return innerdock.Internal(err, "enabling IP forwarding")
	}
	if changed {
		n.log.Info("enabled IP forwarding (net.ipv4.ip_forward=1)")
	}
	n.openForward(closedForwards(ctx, n.firewall.lead))
	return nil
}

// remember learns who has which address: from the rules, and from interfaces
// that have lost theirs and are closed until they are adopted or detached.
func (n *Network) remember() error {
	links, err := n.handle.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		id, ok := n.idOf(l.Attrs().Name, linkPrefix)
		if !ok {
			continue
		}
		addrs, err := n.handle.AddrList(l, netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			guest := toPrefix(a.IPNet).Addr().Next().Next()
			if _, ok := n.pool.index(guest); ok {
				n.byAddr[guest] = entry{id: id, address: guest, access: access{block: true}}
			}
		}
	}
	for _, e := range n.firewall.list() {
		n.byAddr[e.address] = e
	}
	return nil
}

// watch mends what changes on the host from now on, and what did before.
func (n *Network) watch(ctx context.Context) error {
	filter, err := watch(ctx, n.log, filterChanges, n.mend)
	if err != nil {
		return err
	}
	n.guards = append(n.guards, filter)
	links, err := watch(ctx, n.log, linkChanges, n.mendServiceLink)
	if err != nil {
		return err
	}
	n.guards = append(n.guards, links)
	n.mendServiceLink(ctx)
	return nil
}

// mendServiceLink puts the service interface back: what listens on its address
// goes on listening without it, and is reached again. A look alone changes
// nothing, or it would be news itself.
func (n *Network) mendServiceLink(context.Context) {
	whole, err := hasServiceLink(n.handle, n.firewall.lead, n.ServiceAddr())
	if err == nil && !whole {
		n.log.Warn("the service interface was removed or changed by another program; making it again", "interface", n.firewall.lead)
		err = makeServiceLink(n.handle, n.firewall.lead, n.ServiceAddr())
	}
	if err != nil {
		n.log.Error("cannot mend the service interface; sandboxes have no DNS", "err", err)
	}
}

// mend puts back what others on the host took away: our table, and the way
// through their forward chains.
func (n *Network) mend(context.Context) {
	if ok, err := n.firewall.intact(); err != nil {
		n.log.Error("cannot read the packet filter's rules", "err", err)
	} else if !ok {
		n.log.Warn("the packet filter's rules were removed by another program; writing them again")
		if err := n.firewall.reset(); err != nil {
			n.log.Error("cannot write the packet filter's rules", "err", err)
		}
	}
	n.openForward(closedNative(n.firewall.lead))
}

func (n *Network) openForward(chains []forwardChain, err error) {
	if err := errors.Join(err, openForward(chains, n.log)); err != nil {
		n.log.Warn("cannot open the host's FORWARD chain; sandboxes may be offline: see innerdock doctor", "err", err)
	}
}

// ServiceAddr is the address of the gateway's services: DNS on port 53 and the
// registry cache. It is the same for all sandboxes.
func (n *Network) ServiceAddr() netip.Addr { return n.pool.service() }

// Capacity is the number of sandboxes that the pool has addresses for; indexes
// go from 1 to Capacity.
func (n *Network) Capacity() int { return n.pool.capacity() }

// SandboxOf returns the sandbox that has addr.
func (n *Network) SandboxOf(addr netip.Addr) (id string, ok bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	e, ok := n.byAddr[addr.Unmap()]
	return e.id, ok
}

// permit tells the DNS forwarder which answers a client may have.
func (n *Network) permit(client netip.Addr) (func(netip.Addr) bool, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	e, ok := n.byAddr[client]
	if !ok {
		return nil, false
	}
	opens := access{block: e.block, nets: slices.Concat(spans(n.cfg.Allow), e.nets)}.opens
	return func(ip netip.Addr) bool {
		ip = plain(ip)
		return !n.pool.Contains(ip) && (!isDenied(ip) || opens(ip))
	}, true
}

// List returns the IDs of this server that have a namespace, an interface or
// rules, sorted.
func (n *Network) List(ctx context.Context) ([]string, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return n.ids()
}

func (n *Network) ids() ([]string, error) {
	found := map[string]bool{}
	for _, e := range n.firewall.list() {
		found[e.id] = true
	}
	links, err := n.handle.LinkList()
	if err != nil {
		return nil, innerdock.Internal(err, "listing interfaces")
	}
	for _, l := range links {
		if id, ok := n.idOf(l.Attrs().Name, linkPrefix); ok {
			found[id] = true
		}
	}
	files, err := os.ReadDir(netnsDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, innerdock.Internal(err, "listing network namespaces")
	}
	for _, f := range files {
		if id, ok := n.idOf(f.Name(), netnsPrefix); ok {
			found[id] = true
		}
	}
	ids := make([]string, 0, len(found))
	for id := range found {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, nil
}

// Close stops the DNS forwarder; nothing may be called after it. The rules and the service interface go only
// when no sandbox is attached: those that live on need them.
func (n *Network) Close() error {
	if !n.home.IsOpen() {
		return nil // closed already, or never opened
	}
	err := n.stop()
	if n.handle != nil {
		err = errors.Join(err, n.unclaim())
		n.handle.Close()
	}
	return errors.Join(err, n.home.Close())
}

// stop ends what runs in this process.
func (n *Network) stop() error {
	var err error
	if n.dns != nil {
		err = n.dns.Close()
		n.dns = nil
	}
	for _, guard := range n.guards {
		err = errors.Join(err, guard.close())
	}
	n.guards = nil
	return err
}

// unclaim is the undo of claim, while no sandbox is attached.
func (n *Network) unclaim() error {
	ids, err := n.ids()
	if err != nil || len(ids) > 0 {
		return err
	}
	return errors.Join(n.undoForward(), deleteLink(n.handle, n.firewall.lead), n.firewall.delete())
}
