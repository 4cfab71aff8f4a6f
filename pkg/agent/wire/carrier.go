package wire

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"

	"github.com/hashicorp/yamux"
)

// readSize is what the agent reads at a time, in bytes.
const readSize = 256 << 10

// Server makes a session of the agent's connection. Of what the worker sent, it
// reads as much as there is: a system call in a sandbox costs more than a copy.
func Server(conn net.Conn) (*yamux.Session, error) {
	return yamux.Server(&carrier{Conn: conn, from: bufio.NewReaderSize(conn, readSize)}, SessionConfig())
}

// Client makes a session of the worker's connection.
func Client(conn net.Conn) (*yamux.Session, error) {
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
