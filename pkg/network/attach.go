package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
)

// Endpoint is a sandbox's place on the network.
type Endpoint struct {
	NetNS   string       // path of the network namespace; eth0 in it is ready
	Address netip.Prefix // of eth0, a /30
	Gateway netip.Addr   // the host's end of the veth pair, and the default route
	Service netip.Addr   // DNS (port 53) and the registry cache
	MTU     int          // bytes
}

// Attach makes the namespace, the veth pair and the rules of the sandbox id.
// index, from 1 to Capacity, chooses its /30 and must not be another's. The
// rules are in the kernel before the interface is up. What an interrupted Attach
// or Detach of the same id left is removed first; after an error nothing is
// left.
//
// Errors: CodeInvalid, CodeUnsupported (an IPv6 network), CodeConflict (index
// or id in use).
func (n *Network) Attach(ctx context.Context, id string, index int, p Policy) (Endpoint, error) {
	e, err := n.take(ctx, id, index, p)
	if err != nil {
		return Endpoint{}, err
	}
	defer n.release(id)
	if n.traces(id) {
		if err := n.remove(id); err != nil {
			return Endpoint{}, innerdock.Internal(err, "removing what an earlier start left of "+id)
		}
	}
	if err := n.reserve(e); err != nil {
		return Endpoint{}, err
	}
	endpoint, err := n.build(ctx, e, index)
	if err != nil {
		return Endpoint{}, innerdock.Internal(errors.Join(err, n.remove(id)), "attaching "+id+" to the network")
	}
	return endpoint, nil
}

// build makes what Attach promises; the caller removes what an error leaves.
func (n *Network) build(ctx context.Context, e entry, index int) (Endpoint, error) {
	ns, err := makeNamespace(netnsPath(e.id), n.home)
	if err != nil {
		return Endpoint{}, err
	}
	defer ns.close()
	if err := n.firewall.put(e); err != nil {
		return Endpoint{}, err
	}
	gateway, mtu := n.pool.gateway(index), uplinkMTU(n.handle)
	link, err := n.makeVeth(ns, e, gateway, mtu)
	if err != nil {
		return Endpoint{}, err
	}
	if err := ns.address(e.address, gateway); err != nil {
		return Endpoint{}, fmt.Errorf("configuring %s: %w", guestLink, err)
	}
	if err := n.handle.LinkSetUp(link); err != nil {
		return Endpoint{}, fmt.Errorf("setting %s up: %w", link.Name, err)
	}
	if err := ns.await(ctx); err != nil {
		return Endpoint{}, fmt.Errorf("waiting for %s to come up: %w", guestLink, err)
	}
	return n.endpoint(e.id, index, mtu), nil
}

// Adopt writes the rules of a live sandbox again, with p in place of the policy
// that it had. Neither its namespace nor its interface is touched. A sandbox
// that has lost one of them is a CodeNotFound.
func (n *Network) Adopt(ctx context.Context, id string, index int, p Policy) (Endpoint, error) {
	e, err := n.take(ctx, id, index, p)
	if err != nil {
		return Endpoint{}, err
	}
	defer n.release(id)
	link, err := n.handle.LinkByName(hostLink(id))
	if err != nil {
		return Endpoint{}, innerdock.Errorf(innerdock.CodeNotFound, "the sandbox %s has lost its interface %s; terminate it: %w", id, hostLink(id), err)
	}
	addrs, err := n.handle.AddrList(link, netlink.FAMILY_V4)
	if err == nil && len(addrs) == 1 && !contains(n.cfg.Pool, addrs[0].IP) {
		return Endpoint{}, innerdock.Errorf(innerdock.CodeConflict,
			"sandbox %s lives outside the pool %v; start the server with the --pool that it was made in, and terminate it before you change that", id, n.cfg.Pool)
	}
	if err != nil || len(addrs) != 1 || !addrs[0].IP.Equal(n.pool.gateway(index).AsSlice()) {
		return Endpoint{}, innerdock.Errorf(innerdock.CodeNotFound,
			"the interface %s does not have the address of index %d; terminate the sandbox", hostLink(id), index)
	}
	if _, err := os.Lstat(netnsPath(id)); err != nil {
		return Endpoint{}, innerdock.Errorf(innerdock.CodeNotFound, "the sandbox %s has lost its network namespace; terminate it: %w", id, err)
	}
	if err := n.reserve(e); err != nil {
		return Endpoint{}, err
	}
	if err := n.firewall.put(e); err != nil {
		return Endpoint{}, innerdock.Internal(err, "writing the rules of "+id)
	}
	return n.endpoint(id, index, link.Attrs().MTU), nil
}

// Detach removes everything that id has on the network, whatever is left of it.
// Idempotent.
func (n *Network) Detach(ctx context.Context, id string) error {
	if err := n.checkID(id); err != nil {
		return err
	}
	if err := n.lock(id); err != nil {
		return err
	}
	defer n.release(id)
	if err := n.remove(id); err != nil {
		return innerdock.Internal(err, "detaching "+id+" from the network")
	}
	return nil
}

// take checks the arguments and locks id; release must follow.
func (n *Network) take(ctx context.Context, id string, index int, p Policy) (entry, error) {
	if err := context.Cause(ctx); err != nil {
		return entry{}, err
	}
	if err := errors.Join(n.checkID(id), checkAllow(p.Allow)); err != nil {
		return entry{}, err
	}
	if index < 1 || index > n.Capacity() {
		return entry{}, innerdock.Errorf(innerdock.CodeInvalid, "the index %d is not between 1 and %d, the size of the pool %v", index, n.Capacity(), n.cfg.Pool)
	}
	return entry{id: id, address: n.pool.guest(index), access: p.access()}, n.lock(id)
}

func (n *Network) checkID(id string) error {
	if _, ok := n.idOf(id, ""); !ok {
		return innerdock.Errorf(innerdock.CodeInvalid, "%q is not a sandbox ID of this server: 12 characters of a-z and 2-7 that begin with %s", id, n.cfg.Prefix)
	}
	return nil
}

func (n *Network) lock(id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.busy[id] {
		return innerdock.Errorf(innerdock.CodeConflict, "the network of the sandbox %s is being changed; try again", id)
	}
	n.busy[id] = true
	return nil
}

func (n *Network) release(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.busy, id)
}

// reserve takes e's address, and makes it known to DNS and SandboxOf.
func (n *Network) reserve(e entry) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if other, ok := n.byAddr[e.address]; ok && other.id != e.id {
		return innerdock.Errorf(innerdock.CodeConflict, "the address %v is that of the sandbox %s; detach it first", e.address, other.id)
	}
	n.byAddr[e.address] = e
	return nil
}

// traces reports whether id has anything on the host.
func (n *Network) traces(id string) bool {
	if _, err := os.Lstat(netnsPath(id)); !errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if _, err := n.handle.LinkByName(hostLink(id)); err == nil {
		return true
	}
	return len(n.addressesOf(id)) > 0
}

func (n *Network) addressesOf(id string) []netip.Addr {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var out []netip.Addr
	for addr, e := range n.byAddr {
		if e.id == id {
			out = append(out, addr)
		}
	}
	return out
}

// remove is the undo of Attach, from any state: cut the wire, forget the rules,
// then the name. The address is free once all is done.
func (n *Network) remove(id string) error {
	err := errors.Join(deleteLink(n.handle, hostLink(id)), removeNamespace(netnsPath(id)))
	for _, addr := range n.addressesOf(id) {
		if e := errors.Join(n.firewall.remove(addr), n.forgetFlows(addr)); e != nil {
			err = errors.Join(err, e)
			continue
		}
		if err == nil {
			n.mu.Lock()
			delete(n.byAddr, addr)
			n.mu.Unlock()
		}
	}
	return err
}

// forgetFlows drops the tracked connections of addr, so that late replies do
// not reach the next sandbox that has it.
func (n *Network) forgetFlows(addr netip.Addr) error {
	var byOrigin, byReply netlink.ConntrackFilter
	ip := net.IP(addr.AsSlice())
	if err := errors.Join(byOrigin.AddIP(netlink.ConntrackOrigSrcIP, ip), byReply.AddIP(netlink.ConntrackReplySrcIP, ip)); err != nil {
		return err
	}
	_, err := n.handle.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.InetFamily(unix.AF_INET), &byOrigin, &byReply)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("forgetting the connections of %v: %w", addr, err)
	}
	return nil
}

// makeVeth joins the namespace to the host, whose end is not up yet.
func (n *Network) makeVeth(ns *namespace, e entry, gateway netip.Addr, mtu int) (*netlink.Veth, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = hostLink(e.id), mtu, macOf(gateway)
	link := &netlink.Veth{LinkAttrs: attrs, PeerName: guestLink, PeerHardwareAddr: macOf(e.address),
		PeerMTU: uint32(mtu), PeerNamespace: netlink.NsFd(int(ns.fd))}
	if err := n.handle.LinkAdd(link); err != nil {
		return nil, fmt.Errorf("making the veth pair %s: %w", attrs.Name, err)
	}
	if err := disableIPv6(attrs.Name); err != nil {
		return nil, err
	}
	if err := n.handle.AddrAdd(link, &netlink.Addr{IPNet: ipNet(gateway, slotBits)}); err != nil {
		return nil, fmt.Errorf("giving %s the address %v: %w", attrs.Name, gateway, err)
	}
	return link, nil
}

func (n *Network) endpoint(id string, index, mtu int) Endpoint {
	return Endpoint{NetNS: netnsPath(id), Address: netip.PrefixFrom(n.pool.guest(index), slotBits),
		Gateway: n.pool.gateway(index), Service: n.ServiceAddr(), MTU: mtu}
}

func contains(pool netip.Prefix, ip net.IP) bool {
	addr, ok := netip.AddrFromSlice(ip)
	return ok && pool.Contains(addr.Unmap())
}
