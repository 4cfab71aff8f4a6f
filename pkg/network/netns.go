package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// linkTime is how long an interface may take to come up.
const linkTime = 5 * time.Second

// namespace is a network namespace that has just been made: its descriptor, and
// a netlink socket inside it.
type namespace struct {
	fd     netns.NsHandle
	handle *netlink.Handle
}

func (ns *namespace) close() {
	if ns.handle != nil {
		ns.handle.Close()
	}
	_ = ns.fd.Close()
}

// makeNamespace makes a network namespace and gives it a name at path. Its
// loopback is up; interfaces that it gets have no IPv6.
func makeNamespace(path string, home netns.NsHandle) (*namespace, error) {
	if err := prepareNames(); err != nil {
		return nil, fmt.Errorf("preparing %s: %w", netnsDir, err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return nil, err
	}
	_ = file.Close()
	ns := &namespace{fd: netns.None()}
	if err := apart(home, func() error { return ns.fill(path) }); err != nil {
		ns.close()
		return nil, errors.Join(fmt.Errorf("making the network namespace %s: %w", path, err), removeNamespace(path))
	}
	return ns, nil
}

// prepareNames makes the directory of names a shared mount of itself, as
// `ip netns add` does when it is not one yet: that would lay the mount over ours,
// and what is under it could not be unmounted by its name. The lock is the one
// that ip takes.
func prepareNames() error {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return err
	}
	dir, err := os.Open(netnsDir)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	err = unix.Mount("", netnsDir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	if err := unix.Mount(netnsDir, netnsDir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	return unix.Mount("", netnsDir, "none", unix.MS_SHARED|unix.MS_REC, "")
}

// apart calls fn on a thread that is in a new network namespace, and brings the
// thread home. A thread that cannot come home is thrown away.
func apart(home netns.NsHandle, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("unshare: %w", err)
			return
		}
		err := fn()
		if back := netns.Set(home); back != nil {
			done <- errors.Join(err, fmt.Errorf("returning to the host's namespace: %w", back))
			return
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

func (ns *namespace) fill(path string) (err error) {
	if err := unix.Mount("/proc/thread-self/ns/net", path, "none", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	if ns.fd, err = netns.Get(); err != nil {
		return err
	}
	if ns.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return err
	}
	if err := disableIPv6("default"); err != nil { // lo keeps its ::1
		return err
	}
	lo, err := ns.handle.LinkByName("lo")
	if err != nil {
		return err
	}
	return ns.handle.LinkSetUp(lo)
}

// address gives the sandbox's interface its address and the way out.
func (ns *namespace) address(guest, gateway netip.Addr) error {
	link, err := ns.handle.LinkByName(guestLink)
	if err != nil {
		return err
	}
	if err := ns.handle.AddrAdd(link, &netlink.Addr{IPNet: ipNet(guest, slotBits)}); err != nil {
		return err
	}
	if err := ns.handle.LinkSetUp(link); err != nil {
		return err
	}
	return ns.handle.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.IP(gateway.AsSlice())})
}

// await returns when the sandbox's interface carries packets. The end of a veth
// pair that came up first, without its peer, starts to do so a little later,
// when the kernel's link watch gets to it; until then it drops what it is given.
func (ns *namespace) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, linkTime)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		link, err := ns.handle.LinkByName(guestLink)
		if err != nil || link.Attrs().OperState == netlink.OperUp {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// removeNamespace takes the name away, and with it the namespace unless
// something runs in it. Idempotent.
func removeNamespace(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err == nil {
			continue // it may have been mounted over
		}
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmounting %s: %w", path, err)
		}
		break
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// disableIPv6 turns IPv6 off on an interface of the calling thread's namespace.
// A kernel without IPv6 is fine.
func disableIPv6(link string) error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+link+"/disable_ipv6", []byte("1"), 0o644)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
