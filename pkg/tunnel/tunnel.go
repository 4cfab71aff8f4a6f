// Package tunnel carries a byte stream, such as a connection to Docker, over an
// HTTP/1.1 connection that was upgraded to it, from a client through the server
// to an agent.
//
// The two directions of a tunnel end separately, as those of a socket do, and an
// end is told apart from a connection that broke: yamux, TLS libraries and HTTP
// proxies between the two ends know only the whole. So what is sent goes in
// frames, a length of four bytes (big-endian) and as many bytes; a length of
// zero ends the direction. A connection that ends before that was cut off. Who
// is in between passes bytes on and closes both sides when one ends (Pipe).
package tunnel

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Protocol is the name that the Upgrade header has.
const Protocol = "innerdock-tunnel/1"

const (
	header   = 4
	maxFrame = 1 << 20   // bytes that are accepted in a frame
	chunk    = 256 << 10 // bytes that are sent in a frame, and of a copy's buffer
)

// Stream is a connection whose directions end separately.
type Stream interface {
	net.Conn
	CloseWrite() error
}

// Conn is one end of a tunnel. Reads and writes may go on at the same time.
type Conn struct {
	net.Conn
	reader *bufio.Reader
	left   int  // bytes of the frame that is being read
	ended  bool // the other end has ended its direction

	mu     sync.Mutex // of writing
	frame  []byte     // as large as the largest so far
	closed bool       // this end has ended its direction
}

// New makes one end of a tunnel from the connection that carries it.
func New(carrier net.Conn) *Conn {
	return &Conn{Conn: carrier, reader: bufio.NewReaderSize(carrier, header+chunk), frame: make([]byte, header)}
}

// Read returns io.EOF when the other end has ended its direction, and another
// error when the tunnel was cut off.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if c.left == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	n, err := c.reader.Read(p[:min(len(p), c.left)])
	c.left -= n
	// What is here already goes along: frames may be small, or cut anywhere.
	for err == nil && n < len(p) && c.reader.Buffered() > header {
		if c.left == 0 && c.next() != nil {
			break // it will be seen again
		}
		more, _ := c.reader.Read(p[n:min(len(p), n+c.left)]) // from its buffer
		n += more
		c.left -= more
	}
	return n, cutOff(err)
}

// next reads the length of a frame. A deadline that passes loses nothing of it.
func (c *Conn) next() error {
	if c.ended {
		return io.EOF
	}
	length, err := c.reader.Peek(header)
	if err != nil {
		return cutOff(err)
	}
	size := binary.BigEndian.Uint32(length)
	if size > maxFrame {
		return fmt.Errorf("a frame of the tunnel has %d bytes; %d are allowed", size, maxFrame)
	}
	_, _ = c.reader.Discard(header) // it is buffered
	c.left, c.ended = int(size), size == 0
	if c.ended {
		return io.EOF
	}
	return nil
}

// awaitCut returns when the tunnel is closed, at either end. It is for after Read
// has returned io.EOF: nothing may come then.
func (c *Conn) awaitCut() { _, _ = c.reader.Peek(1) }

// cutOff makes an end without a frame that says so an error.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Write sends p.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	written := 0
	for len(p) > 0 {
		n := min(len(p), chunk)
		c.frame = append(c.frame[:header], p[:n]...)
		binary.BigEndian.PutUint32(c.frame, uint32(n))
		if _, err := c.Conn.Write(c.frame); err != nil {
			return written, err
		}
		written += n
		p = p[n:]
	}
	return written, nil
}

// CloseWrite ends this end's direction; the other one goes on.
func (c *Conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	_, err := c.Conn.Write(make([]byte, header))
	return err
}
