package wire

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"

	"github.com/hashicorp/yamux"
)

const (
	readSize   = 256 << 10 // bytes that the agent reads at a time
	sendBuffer = 1 << 20   // bytes that may wait for it, where the kernel allows that
)

// Server makes a session of the agent's connection. Of what the worker sent, it
// reads as much as there is: a system call in a sandbox costs more than a copy.
func Server(conn net.Conn) (*yamux.Session, error) {
	return yamux.Server(&carrier{Conn: conn, from: bufio.NewReaderSize(conn, readSize)}, SessionConfig())
}

// Client makes a session of the worker's connection, which has room for more than
// one frame: the agent finds the next when it is done with one, and need not wait.
func Client(conn net.Conn) (*yamux.Session, error) {
	if socket, ok := conn.(*net.UnixConn); ok {
		_ = socket.SetWriteBuffer(sendBuffer) // it is quicker so, and works without
	}
	return yamux.Client(&carrier{Conn: conn, from: conn}, SessionConfig())
}

// carrier is a connection under yamux, which writes a frame in two pieces, a
// header and a body. Here they leave together: the other side would wake for
// twelve bytes.
type carrier struct {
	net.Conn
	from   io.Reader
	header [headerSize]byte
	held   bool // the header, whose body follows
}

// The header of a frame: version, type, flags, stream, and the length of the body
// if the type is data.
const (
	headerSize = 12
	typeAt     = 1
	lengthAt   = 8
	typeData   = 0
)

func (c *carrier) Read(p []byte) (int, error) { return c.from.Read(p) }

// Write is called by one goroutine.
func (c *carrier) Write(p []byte) (int, error) {
	if c.held {
		c.held = false
		frame := net.Buffers{c.header[:], p}
		if _, err := frame.WriteTo(c.Conn); err != nil {
			return 0, err // the session ends
		}
		return len(p), nil
	}
	if len(p) == headerSize && p[typeAt] == typeData && binary.BigEndian.Uint32(p[lengthAt:]) > 0 {
		c.held = true
		return copy(c.header[:], p), nil
	}
	return c.Conn.Write(p)
}
