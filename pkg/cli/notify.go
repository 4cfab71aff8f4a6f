package cli

import "net"

// notifyReady tells systemd that the server listens, if systemd asked for that.
func notifyReady(socket string) {
	if socket == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return
	}
	_, _ = conn.Write([]byte("READY=1"))
	_ = conn.Close()
}
