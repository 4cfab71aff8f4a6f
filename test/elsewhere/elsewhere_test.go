package elsewhere

import (
	"net"
	"testing"

	"github.com/vishvananda/netns"
)

// What listens in another namespace is there, and not at home.
func TestInAnotherNamespace(t *testing.T) {
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	ns, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var listener net.Listener
	if err := In(ns, func() (err error) {
		here, err := netns.Get()
		if err != nil {
			return err
		}
		defer here.Close()
		if !here.Equal(ns) || here.Equal(home) {
			t.Errorf("it is %v, not %v; home is %v", here, ns, home)
		}
		listener, err = net.Listen("tcp4", ":9100")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if conn, err := net.Dial("tcp4", listener.Addr().String()); err == nil {
		conn.Close()
		t.Error("what listens there answers at home")
	}
	if err := In(netns.None(), func() error { t.Error("nowhere is somewhere"); return nil }); err == nil {
		t.Error("no namespace is one")
	}
}
