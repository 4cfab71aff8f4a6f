//go:build !unix

package tunnel

import "net"

func onSocketHangup(net.Conn, <-chan struct{}, func()) {}
