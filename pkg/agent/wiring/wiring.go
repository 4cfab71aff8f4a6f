// Package wiring brings back what gVisor forgets of a sandbox's networks in a
// checkpoint: the bridges, the cables between them and the containers, their
// addresses and routes, and the firewall's rules. It looks at all network
// namespaces before, and makes what is missing after, with the same names and
// addresses, so that dockerd and its containers need not know.
//
// What gVisor keeps by itself: the namespaces, the loopback links, and sockets
// that listen or are bound. Connections are gone.
package wiring

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Picture is how the networks were. It lies in the memory that is checkpointed.
type Picture struct {
	own   netip.Addr // of eth0
	root  space
	inner []space
}

// space is one network namespace.
type space struct {
	ns     *os.File // nil: that of this process
	links  []link
	routes []netlink.Route
	tables []table
}

// link is a bridge or one end of a cable.
type link struct {
	netlink.LinkAttrs
	kind      string
	bridge    string // that it is plugged into
	addresses []netlink.Addr
}

const (
	bridgeKind = "bridge"
	cableKind  = "veth"
)

// Take looks at the networks of a sandbox whose eth0 has the address own. The
// caller closes the picture.
func Take(own netip.Addr) (*Picture, error) {
	p := &Picture{own: own}
	var err error
	if p.root, err = look(nil); err != nil {
		return nil, err
	}
	namespaces, err := namespaces()
	for _, ns := range namespaces {
		inner, lookErr := look(ns)
		if lookErr != nil {
			err = errors.Join(err, lookErr, ns.Close())
			continue
		}
		p.inner = append(p.inner, inner)
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Close lets go of the namespaces.
func (p *Picture) Close() error {
	var err error
	for _, s := range p.inner {
		err = errors.Join(err, s.ns.Close())
	}
	return err
}

// Restore makes what is missing. Rules that name the address of eth0 name own
// from now on.
func (p *Picture) Restore(own netip.Addr) error {
	root, err := open(nil)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, l := range p.root.links {
		if l.kind == bridgeKind {
			if err := addBridge(root, l); err != nil {
				return fmt.Errorf("bridge %s: %w", l.Name, err)
			}
		}
	}
	plugs := p.plugs()
	for _, s := range p.inner {
		if err := s.restore(root, &plugs); err != nil {
			return err
		}
	}
	return inNamespace(nil, func() error { return replaceTables(p.root.tables, p.own, own) })
}

// namespaces opens each network namespace that a process is in, but this one's.
func namespaces() ([]*os.File, error) {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	paths, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{own: true}
	var files []*os.File
	for _, path := range paths {
		id, err := os.Readlink(path)
		if err != nil || seen[id] {
			continue // it has ended
		}
		if file, err := os.Open(path); err == nil {
			seen[id] = true
			files = append(files, file)
		}
	}
	return files, nil
}

// look describes one namespace.
func look(ns *os.File) (s space, err error) {
	s.ns = ns
	handle, err := open(ns)
	if err != nil {
		return s, err
	}
	defer handle.Close()
	links, err := handle.LinkList()
	if err != nil {
		return s, fmt.Errorf("listing links: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	for _, l := range links {
		kind := l.Type()
		if kind == "device" && l.Attrs().Flags&net.FlagLoopback == 0 && ns != nil {
			kind = cableKind // gVisor forgets what a link is that moves to another namespace
		}
		if kind != bridgeKind && kind != cableKind {
			continue
		}
		addresses, err := handle.AddrList(l, unix.AF_UNSPEC)
		if err != nil {
			return s, fmt.Errorf("listing the addresses of %s: %w", l.Attrs().Name, err)
		}
		s.links = append(s.links, link{*l.Attrs(), kind, names[l.Attrs().MasterIndex], addresses})
	}
	if ns != nil {
		if s.routes, err = handle.RouteList(nil, unix.AF_INET); err != nil {
			return s, fmt.Errorf("listing routes: %w", err)
		}
	}
	err = inNamespace(ns, func() error {
		s.tables, err = readTables()
		return err
	})
	return s, err
}

// plug is the end of a cable that is in a bridge.
type plug struct {
	name, bridge string
	subnets      []*net.IPNet // of the bridge
}

// plugs returns the ends in the root's bridges. gVisor does not tell where a
// cable's other end is; the addresses do.
func (p *Picture) plugs() []plug {
	subnets := map[string][]*net.IPNet{}
	for _, l := range p.root.links {
		for _, a := range l.addresses {
			subnets[l.Name] = append(subnets[l.Name], a.IPNet)
		}
	}
	var plugs []plug
	for _, l := range p.root.links {
		if l.kind == cableKind && l.bridge != "" {
			plugs = append(plugs, plug{l.Name, l.bridge, subnets[l.bridge]})
		}
	}
	return plugs
}

// take removes a plug that l's cable may have had from plugs.
func take(plugs *[]plug, l link) (plug, bool) {
	fits := func(p plug) bool {
		return slices.ContainsFunc(p.subnets, func(subnet *net.IPNet) bool {
			return slices.ContainsFunc(l.addresses, func(a netlink.Addr) bool { return subnet.Contains(a.IP) })
		})
	}
	i := slices.IndexFunc(*plugs, fits)
	if i < 0 {
		return plug{}, false
	}
	p := (*plugs)[i]
	*plugs = slices.Delete(*plugs, i, i+1)
	return p, true
}

func (s space) restore(root *netlink.Handle, plugs *[]plug) error {
	inner, err := open(s.ns)
	if err != nil {
		return err
	}
	defer inner.Close()
	for _, l := range s.links {
		if l.kind != cableKind {
			continue
		}
		plug, found := take(plugs, l)
		if !found {
			continue // nobody of ours made it
		}
		if err := addCable(root, inner, s.ns, plug, l); err != nil {
			return fmt.Errorf("cable %s: %w", l.Name, err)
		}
	}
	if err := s.addRoutes(inner); err != nil {
		return err
	}
	return inNamespace(s.ns, func() error { return replaceTables(s.tables, netip.Addr{}, netip.Addr{}) })
}

func addBridge(root *netlink.Handle, l link) error {
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: l.Name, MTU: l.MTU, HardwareAddr: l.HardwareAddr}}
	if err := root.LinkAdd(bridge); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return up(root, l)
}

// addCable makes a cable from the namespace ns to a bridge of the root.
func addCable(root, inner *netlink.Handle, ns *os.File, p plug, l link) error {
	if _, err := inner.LinkByName(l.Name); err == nil {
		return nil // nothing was lost
	}
	bridge, err := root.LinkByName(p.bridge)
	if err != nil {
		return err
	}
	cable := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: p.name, MTU: l.MTU},
		PeerName: l.Name, PeerHardwareAddr: l.HardwareAddr, PeerMTU: uint32(l.MTU), PeerNamespace: netlink.NsFd(int(ns.Fd()))}
	if err := root.LinkAdd(cable); err != nil {
		return err
	}
	end, err := root.LinkByName(p.name)
	if err != nil {
		return err
	}
	if err := root.LinkSetMaster(end, bridge); err != nil {
		return err
	}
	if err := root.LinkSetUp(end); err != nil {
		return err
	}
	return up(inner, l)
}

// up gives a link that was made its addresses, and turns it on.
func up(handle *netlink.Handle, l link) error {
	made, err := handle.LinkByName(l.Name)
	if err != nil {
		return err
	}
	for _, a := range l.addresses {
		if a.IP.IsLinkLocalUnicast() {
			continue // gVisor gives it one
		}
		if err := handle.AddrAdd(made, &netlink.Addr{IPNet: a.IPNet}); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("address %s: %w", a.IPNet, err)
		}
	}
	return handle.LinkSetUp(made)
}

// addRoutes makes the routes by a gateway: the others come with the addresses.
func (s space) addRoutes(inner *netlink.Handle) error {
	names := map[int]string{}
	for _, l := range s.links {
		names[l.Index] = l.Name
	}
	for _, r := range s.routes {
		if r.Gw == nil || names[r.LinkIndex] == "" {
			continue
		}
		via, err := inner.LinkByName(names[r.LinkIndex])
		if err != nil {
			continue // it is not ours
		}
		route := &netlink.Route{LinkIndex: via.Attrs().Index, Dst: r.Dst, Gw: r.Gw}
		if err := inner.RouteAdd(route); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("route by %s: %w", r.Gw, err)
		}
	}
	return nil
}
