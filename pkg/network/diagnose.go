package network

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock/pkg/network/dnsproxy"
)

// Finding is one line of `innerdock doctor`.
type Finding struct {
	Name   string // what was looked at
	OK     bool
	Detail string // what was found
	Mend   string // commands that mend it, one a line; "" when OK or unknown
}

// Diagnose looks whether sandboxes can be networked on this host, changing
// nothing. Of cfg it uses Pool, Prefix and Resolvers; without a Prefix it speaks
// of the interfaces of all servers.
func Diagnose(ctx context.Context, cfg Config) []Finding {
	cfg = cfg.withDefaults()
	findings := []Finding{kernelFinding(cfg)}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return append(findings, Finding{Name: "netlink", Detail: err.Error(), Mend: "run it as root"})
	}
	defer h.Close()
	return append(findings, routeFinding(h), poolFinding(h, cfg), forwardingFinding(), ForwardPolicy(ctx, cfg.Prefix), dnsFinding(cfg))
}

// kernelFinding makes the rules and a veth pair in a throw-away namespace.
func kernelFinding(cfg Config) Finding {
	f := Finding{Name: "network namespaces, veth, nftables"}
	home, err := netns.Get()
	if err == nil {
		defer func() { _ = home.Close() }()
		err = apart(home, func() error { return tryKernel(cfg) })
	}
	if err != nil {
		f.Detail = err.Error()
		f.Mend = "run it as root, on a kernel with veth and nf_tables: modprobe -a veth nf_tables nft_ct nft_fib_inet nft_masq nft_connlimit nf_conntrack_netlink"
		return f
	}
	f.OK, f.Detail = true, "all that sandboxes need"
	return f
}

func tryKernel(cfg Config) error {
	cfg.Prefix, cfg.Allow = "test", nil
	p, err := newPool(cfg.Pool)
	if err != nil {
		return err
	}
	f := newFirewall(cfg, p)
	allow := Policy{Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	if err := f.put(entry{id: "testtesttest", address: p.guest(1), access: allow.access()}); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = hostLink("testtesttest")
	if err := h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: guestLink}); err != nil {
		return fmt.Errorf("veth: %w", err)
	}
	return nil
}

func routeFinding(h *netlink.Handle) Finding {
	f := Finding{Name: "way to the internet"}
	routes, err := h.RouteGet(somewhere)
	if err != nil || len(routes) == 0 {
		f.Detail, f.Mend = "no default route: sandboxes are offline", "ip route add default via GATEWAY"
		return f
	}
	f.OK, f.Detail = true, fmt.Sprintf("MTU %d", uplinkMTU(h))
	if link, err := h.LinkByIndex(routes[0].LinkIndex); err == nil {
		f.Detail = link.Attrs().Name + ", " + f.Detail
	}
	return f
}

func poolFinding(h *netlink.Handle, cfg Config) Finding {
	f := Finding{Name: "address pool"}
	p, err := newPool(cfg.Pool)
	if err == nil {
		err = conflict(h, cfg.Pool, linkPrefix+cfg.Prefix)
	}
	if err != nil {
		f.Detail, f.Mend = err.Error(), fmt.Sprintf("innerdock server --pool %v", another(cfg.Pool))
		return f
	}
	f.OK, f.Detail = true, fmt.Sprintf("%v, room for %d sandboxes", cfg.Pool, p.capacity())
	return f
}

func forwardingFinding() Finding {
	f := Finding{Name: "IP forwarding", OK: true, Detail: "on"}
	now, err := os.ReadFile(forwardSysctl)
	if err == nil && strings.TrimSpace(string(now)) != "1" {
		f.Detail = "off; the server turns it on"
		err = unix.Access(forwardSysctl, unix.W_OK)
	}
	if err != nil {
		f.OK, f.Detail, f.Mend = false, err.Error(), "sysctl -w net.ipv4.ip_forward=1"
	}
	return f
}

// ForwardPolicy looks for other programs' chains that drop forwarded packets,
// as those of Docker and ufw do. The server of prefix lets its own interfaces
// through them while it runs.
func ForwardPolicy(ctx context.Context, prefix string) Finding {
	f := Finding{Name: "forward chains of others", OK: true, Detail: "none drops"}
	chains, err := closedForwards(ctx, linkPrefix+prefix)
	if err != nil {
		f.OK, f.Detail = false, err.Error()
		return f
	}
	var names, mend []string
	for _, c := range chains {
		names = append(names, c.table+" "+c.chain)
		if !c.opened {
			f.OK = false
			mend = append(mend, c.mend...)
		}
	}
	if len(names) > 0 {
		f.Detail = "dropped by " + strings.Join(names, ", ")
		if f.OK {
			f.Detail += "; open for sandboxes"
		} else {
			f.Detail += "; a running server opens them for its sandboxes"
		}
	}
	f.Mend = strings.Join(mend, "\n")
	return f
}

func dnsFinding(cfg Config) Finding {
	f := Finding{Name: "DNS"}
	list := cfg.Resolvers
	if len(list) == 0 {
		var err error
		if list, err = dnsproxy.HostResolvers(); err != nil {
			f.Detail, f.Mend = err.Error(), "write a line such as `nameserver 1.1.1.1` to /etc/resolv.conf"
			return f
		}
	}
	f.OK, f.Detail = true, "forwarded to "+strings.Join(list, ", ")
	return f
}
