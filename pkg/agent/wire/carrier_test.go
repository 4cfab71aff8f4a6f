package wire

import (
	"bytes"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ends returns two connected sockets of a kind.
func ends(t *testing.T, kind int) (near, far net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conns := [2]net.Conn{}
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "socketpair")
		if conns[i], err = net.FileConn(file); err != nil {
			t.Fatal(err)
		}
		_ = file.Close()
		t.Cleanup(func() { _ = conns[i].Close() })
	}
	return conns[0], conns[1]
}

// A socket of packets shows what is written at a time.
func TestAFrameIsOnePacket(t *testing.T) {
	near, far := ends(t, unix.SOCK_SEQPACKET)
	_ = far.SetDeadline(time.Now().Add(10 * time.Second))
	session, err := Client(near)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close() })
	stream, err := session.Open() // a packet of its own
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"hello", "a body of 12"} {
		if _, err := io.WriteString(stream, body); err != nil {
			t.Fatal(err)
		}
	}
	packet := make([]byte, 100)
	for _, want := range []string{"", "hello", "a body of 12"} {
		n, err := far.Read(packet)
		if err != nil || n != headerSize+len(want) || string(packet[headerSize:n]) != want {
			t.Fatalf("%q, %v; want a header and %q", packet[:n], err, want)
		}
	}
}

func TestSessionsOfCarriers(t *testing.T) {
	one, other := ends(t, unix.SOCK_STREAM)
	near, err := Client(one)
	if err != nil {
		t.Fatal(err)
	}
	far, err := Server(other)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
	sent := bytes.Repeat([]byte("0123456789abcde"), 200_000)
	go func() {
		stream, err := far.Accept()
		if err != nil {
			return
		}
		_, _ = io.Copy(stream, stream)
		_ = stream.Close()
	}()
	stream, err := near.Open()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for rest, size := sent, 1; len(rest) > 0; size *= 3 {
			n := min(size, len(rest))
			_, _ = stream.Write(rest[:n])
			rest = rest[n:]
		}
		_ = stream.Close() // of this direction
	}()
	got, err := io.ReadAll(stream)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes of %d came back, %v", len(got), len(sent), err)
	}
}
