package doctor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespaces makes a named network namespace and a veth pair in it.
func (m machine) namespaces(context.Context) Check {
	err := inNamespace(func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "probe0"}, PeerName: "probe1"})
	})
	if err != nil {
		return fail("network namespaces", err.Error(), "modprobe veth; mkdir -p /run/netns   # as root, in no container that forbids it")
	}
	return ok("network namespaces", "one with a veth pair can be made")
}

// firewall makes a table like the server's in a namespace of its own.
func (m machine) firewall(context.Context) Check {
	if err := inNamespace(makeTable); err != nil {
		return fail("nftables", "the kernel refuses a table: "+err.Error(), "modprobe -a nf_tables nft_chain_nat nft_masq nft_ct")
	}
	return ok("nftables", "filter and NAT chains can be made")
}

func makeTable() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "innerdock_doctor"})
	drop := nftables.ChainPolicyDrop
	filter := conn.AddChain(&nftables.Chain{Name: "forward", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop})
	nat := conn.AddChain(&nftables.Chain{Name: "nat", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
	conn.AddRule(&nftables.Rule{Table: table, Chain: filter, Exprs: []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1}, &expr.Verdict{Kind: expr.VerdictAccept}}})
	conn.AddRule(&nftables.Rule{Table: table, Chain: nat, Exprs: []expr.Any{&expr.Masq{}}})
	return conn.Flush()
}

// inNamespace calls do in a new, named network namespace, and removes that. The
// thread that entered it is never used again: it ends with its goroutine.
func inNamespace(do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		name := fmt.Sprintf("innerdock-doctor-%d-%d", os.Getpid(), unix.Gettid())
		handle, err := netns.NewNamed(name)
		if err != nil {
			done <- fmt.Errorf("making a network namespace: %w", err)
			return
		}
		err = do()
		_ = handle.Close()
		if gone := netns.DeleteNamed(name); err == nil {
			err = gone
		}
		done <- err
	}()
	return <-done
}

// pool wants the sandboxes' addresses to be nobody else's.
func pool(addresses netip.Prefix) func(context.Context) Check {
	return func(context.Context) Check {
		links, err := net.Interfaces()
		if err != nil {
			return fail("addresses", err.Error(), "start the server with another --pool")
		}
		for _, link := range links {
			if strings.HasPrefix(link.Name, "idk") { // a server's own
				continue
			}
			addrs, _ := link.Addrs() // it may be gone
			for _, addr := range addrs {
				used, err := netip.ParsePrefix(addr.String())
				if err == nil && used.Masked().Overlaps(addresses) {
					return fail("addresses", fmt.Sprintf("%s of %s overlaps with the sandboxes' %s", used, link.Name, addresses),
						"start the server with another --pool, such as 10.214.0.0/16")
				}
			}
		}
		return ok("addresses", addresses.String()+" is free for sandboxes")
	}
}
