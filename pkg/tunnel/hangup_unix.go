//go:build unix

package tunnel

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// hangupPace is how often a half-closed connection is looked at.
const hangupPace = time.Second

// onSocketHangup is onHangup for Unix sockets.
func onSocketHangup(conn net.Conn, over <-chan struct{}, end func()) {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return
	}
	ticker := time.NewTicker(hangupPace)
	defer ticker.Stop()
	for {
		gone := false
		err := raw.Control(func(fd uintptr) {
			poll := []unix.PollFd{{Fd: int32(fd)}}
			_, _ = unix.Poll(poll, 0)
			gone = poll[0].Revents&unix.POLLHUP != 0
		})
		if err != nil {
			return // closed
		}
		if gone {
			end()
			return
		}
		select {
		case <-ticker.C:
		case <-over:
			return
		}
	}
}
