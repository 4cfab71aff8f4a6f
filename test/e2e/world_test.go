package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/innerdock/innerdock/test/elsewhere"
)

// world is a network namespace beyond the host, with an address. On its port 9100
// it listens, and tells the SHA-256 of all that each connection said; on 9200 it says
// size bytes, whose SHA-256 is served.
func world(t *testing.T, size int) (address string, heard <-chan string, served string) {
	t.Helper()
	const gateway = "10.227.255.1"
	address = "10.227.255.2"
	ns, err := elsewhere.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	var hears, says net.Listener
	if err := elsewhere.In(ns, func() (err error) {
		if hears, err = net.Listen("tcp4", ":9100"); err != nil {
			return err
		}
		says, err = net.Listen("tcp4", ":9200")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, size)
	_, _ = rand.Read(said)
	sum := sha256.Sum256(said)
	sums := make(chan string, 16)
	var serving sync.WaitGroup
	serving.Go(func() {
		each(hears, func(conn net.Conn) {
			hash := sha256.New()
			if _, err := io.Copy(hash, conn); err == nil {
				sums <- hex.EncodeToString(hash.Sum(nil))
			}
		})
	})
	serving.Go(func() {
		each(says, func(conn net.Conn) { _, _ = io.Copy(conn, bytes.NewReader(said)) })
	})
	t.Cleanup(func() {
		hears.Close()
		says.Close()
		serving.Wait()
	})

	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "e2e-world"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns))}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(link) })
	inside, err := netlink.NewHandleAt(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	eth0, err := inside.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	network := func(address string) *netlink.Addr {
		return &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(address), Mask: net.CIDRMask(30, 32)}}
	}
	if err := errors.Join(netlink.AddrAdd(link, network(gateway)), netlink.LinkSetUp(link),
		inside.AddrAdd(eth0, network(address)), inside.LinkSetUp(eth0),
		inside.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: net.ParseIP(gateway)})); err != nil {
		t.Fatal(err)
	}
	return address, sums, hex.EncodeToString(sum[:])
}

// each serves who connects to l, until it is closed.
func each(l net.Listener, serve func(net.Conn)) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		serve(conn)
		conn.Close()
	}
}
