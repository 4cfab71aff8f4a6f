package tunnel

import (
	"io"
	"net"
	"sync"
)

// Join passes what comes from each stream to the other until both directions
// have ended or one is cut off, then closes both.
func Join(a, b Stream) error {
	end := sync.OnceFunc(func() { _ = a.Close(); _ = b.Close() })
	over := make(chan struct{})
	var watching sync.WaitGroup
	defer watching.Wait()
	defer close(over)
	defer end()
	pass := func(to, from Stream) error {
		err := pour(to, from)
		if err == nil {
			err = to.CloseWrite()
		}
		if err != nil {
			end()
			return err
		}
		watching.Go(func() { onHangup(from, over, end) })
		return nil
	}
	back := make(chan error, 1)
	go func() { back <- pass(a, b) }()
	err := pass(b, a)
	if failure := <-back; err == nil {
		err = failure
	}
	return err
}

// onHangup calls end when the peer of a connection, which has ended its direction,
// is gone altogether: who reads does not see the difference, and who writes may
// have nothing to write. It knows Unix sockets and tunnels, and who wraps one and
// tells it by NetConn; it returns when over is closed and so is the connection.
func onHangup(conn net.Conn, over <-chan struct{}, end func()) {
	if wrapped, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = wrapped.NetConn()
	}
	if tunnel, ok := conn.(interface{ awaitCut() }); ok {
		tunnel.awaitCut()
		end()
		return
	}
	onSocketHangup(conn, over, end)
}

// Pipe passes what comes from each connection to the other and closes both when
// either ends. It is for who is between the two ends of a tunnel.
func Pipe(a, b net.Conn) {
	end := sync.OnceFunc(func() { _ = a.Close(); _ = b.Close() })
	pass := func(to, from net.Conn) {
		_ = pour(to, from)
		end()
	}
	var back sync.WaitGroup
	back.Go(func() { pass(a, b) })
	pass(b, a)
	back.Wait()
}

// pour copies until from ends.
func pour(to io.Writer, from io.Reader) error {
	buffer := Buffers{}.Get()
	defer Buffers{}.Put(buffer)
	_, err := io.CopyBuffer(writer{to}, reader{from}, buffer)
	return err
}

// Buffers lends what copies need; it is a httputil.BufferPool.
type Buffers struct{}

var pool = sync.Pool{New: func() any { return new([chunk]byte) }}

// Get lends a buffer.
func (Buffers) Get() []byte { return pool.Get().(*[chunk]byte)[:] }

// Put takes one back.
func (Buffers) Put(b []byte) { pool.Put((*[chunk]byte)(b)) }

// reader and writer hide the methods by which io.CopyBuffer would choose buffers
// of its own.
type (
	reader struct{ io.Reader }
	writer struct{ io.Writer }
)
