package e2e

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
)

// tcpInfo is what the kernel has counted of a connection.
func tcpInfo(conn *net.TCPConn) (info unix.TCPInfo, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return info, err
	}
	failure := raw.Control(func(fd uintptr) {
		var now *unix.TCPInfo
		if now, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			info = *now
		}
	})
	return info, errors.Join(failure, err)
}

// download is how much a container downloads from the host, in bytes.
const download = 4 << 20

// Linux hands a sandbox many TCP segments as one packet, far above the MTU. It gets
// through to a container on a bridge as it is: the sender sends hardly any twice.
func TestAContainerDownloads(t *testing.T) {
	t.Parallel()
	host := hostAddresses(t)[0]
	listener, err := net.Listen("tcp4", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	type sending struct {
		segments, again uint32
		err             error
	}
	sent := make(chan sending, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			sent <- sending{err: err}
			return
		}
		defer func() { _ = conn.Close() }()
		_, err = conn.Write(make([]byte, download))
		info, failure := tcpInfo(conn.(*net.TCPConn))
		sent <- sending{info.Segs_out, info.Total_retrans, errors.Join(err, failure)}
	}()

	sandbox := shared.createWithDocker(t, innerdock.SandboxSpec{Network: innerdock.NetworkSpec{Allow: []string{host + "/32"}}})
	port := listener.Addr().(*net.TCPAddr).Port
	got := shared.sh(t, sandbox.ID, fmt.Sprintf("timeout 170 docker run --rm busybox sh -c 'nc %s %d </dev/null | wc -c'", host, port))
	if got != fmt.Sprintf("%d\n", download) {
		t.Errorf("the container has %s bytes of %d", got, download)
	}
	_ = listener.Close()
	s := <-sent
	if s.err != nil {
		t.Fatal(s.err)
	}
	t.Logf("%d segments, %d of them again", s.segments, s.again)
	if s.again > s.segments/20 {
		t.Errorf("of %d segments, %d were sent again", s.segments, s.again)
	}
}
