package network

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
)

const (
	forwardSysctl = "/proc/sys/net/ipv4/ip_forward"
	defaultMTU    = 1500
	// wideRoute is the length up to which a route is a way to everywhere, such
	// as the two halves (/1) that VPN clients install, and no conflict.
	wideRoute = 4
)

// somewhere is an address of the public internet's kind, to ask the routing
// table for its default; nothing is sent to it.
var somewhere = net.IPv4(203, 0, 113, 1)

// uplinkMTU is the MTU of the interface towards the internet.
func uplinkMTU(h *netlink.Handle) int {
	routes, err := h.RouteGet(somewhere)
	if err != nil || len(routes) == 0 {
		return defaultMTU // offline: any will do
	}
	link, err := h.LinkByIndex(routes[0].LinkIndex)
	if err != nil || link.Attrs().MTU < 576 {
		return defaultMTU
	}
	return min(link.Attrs().MTU, 65535)
}

// enableForwarding lets the host route between its interfaces. It is not undone:
// others may have come to rely on it.
func enableForwarding() (changed bool, err error) {
	now, err := os.ReadFile(forwardSysctl)
	if err == nil && bytes.Equal(bytes.TrimSpace(now), []byte("1")) {
		return false, nil
	}
	if err := os.WriteFile(forwardSysctl, []byte("1"), 0o644); err != nil {
		return false, fmt.Errorf("enabling forwarding (sysctl -w net.ipv4.ip_forward=1): %w", err)
	}
	return true, nil
}

// makeServiceLink makes the interface that holds the gateway services' address:
// a dummy, or a bridge without ports where the kernel has no dummies. Idempotent.
func makeServiceLink(h *netlink.Handle, name string, service netip.Addr) error {
	link, err := h.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		link, err = addServiceLink(h, name)
	}
	if err != nil {
		return fmt.Errorf("making the interface %s: %w", name, err)
	}
	want := &netlink.Addr{IPNet: ipNet(service, 32)}
	have, err := h.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, a := range have { // an earlier server's, with another pool
		if !a.Equal(*want) {
			if err := h.AddrDel(link, &a); err != nil {
				return fmt.Errorf("taking %v off %s: %w", a.IPNet, name, err)
			}
		}
	}
	if err := h.AddrReplace(link, want); err != nil {
		return fmt.Errorf("giving %s the address %v: %w", name, service, err)
	}
	return h.LinkSetUp(link)
}

// hasServiceLink reports whether the interface is as makeServiceLink makes it.
func hasServiceLink(h *netlink.Handle, name string, service netip.Addr) (bool, error) {
	link, err := h.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	have, err := h.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return false, err
	}
	want := netlink.Addr{IPNet: ipNet(service, 32)}
	return link.Attrs().Flags&net.FlagUp != 0 && slices.ContainsFunc(have, want.Equal), nil
}

func addServiceLink(h *netlink.Handle, name string) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	err := h.LinkAdd(&netlink.Dummy{LinkAttrs: attrs})
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
	}
	if err != nil {
		return nil, err
	}
	if err := disableIPv6(name); err != nil {
		return nil, err
	}
	return h.LinkByName(name)
}

// deleteLink removes the interface called name. Idempotent.
func deleteLink(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = h.LinkDel(link)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("deleting the interface %s: %w", name, err)
	}
	return nil
}

// conflict finds what else on this host uses addresses of the pool; ours are the
// interfaces whose names begin with lead.
func conflict(h *netlink.Handle, p netip.Prefix, lead string) error {
	links, err := h.LinkList()
	if err != nil {
		return fmt.Errorf("listing interfaces: %w", err)
	}
	names, ours := map[int]string{}, map[int]bool{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
		ours[l.Attrs().Index] = strings.HasPrefix(l.Attrs().Name, lead)
	}
	addrs, err := h.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("listing addresses: %w", err)
	}
	for _, a := range addrs {
		if net := toPrefix(a.IPNet); !ours[a.LinkIndex] && net.Overlaps(p) {
			return taken(p, fmt.Sprintf("the address %v of the interface %s", a.IPNet, names[a.LinkIndex]))
		}
	}
	routes, err := h.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("listing routes: %w", err)
	}
	for _, r := range routes {
		if net := toPrefix(r.Dst); !ours[r.LinkIndex] && net.Bits() > wideRoute && net.Overlaps(p) {
			return taken(p, fmt.Sprintf("the route to %v by %s", net, or(names[r.LinkIndex], "no interface")))
		}
	}
	return nil
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func taken(p netip.Prefix, what string) error {
	return innerdock.Errorf(innerdock.CodeConflict,
		"the address pool %v overlaps %s; start the server with another pool, such as --pool %v", p, what, another(p))
}

// another proposes a private network that does not overlap p.
func another(p netip.Prefix) netip.Prefix {
	for _, s := range []string{"10.213.0.0/16", "172.29.0.0/16", "192.168.208.0/20"} {
		if q := netip.MustParsePrefix(s); !q.Overlaps(p) {
			return q
		}
	}
	return DefaultPool
}

func toPrefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	addr, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits).Masked()
}
