package tunnel

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	maxHead       = 16 << 10         // bytes of an answer's head
	upgradeIn     = 60 * time.Second // longest wait for the answer
	switchingHead = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + Protocol + "\r\n\r\n"
)

// Request asks on conn for a tunnel. When the other side agrees, the tunnel is
// carried by the connection that is returned. Otherwise the answer is, with a
// body to be read, capped, before conn is closed.
func Request(conn net.Conn, request *http.Request) (net.Conn, *http.Response, error) {
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", Protocol)
	if err := conn.SetDeadline(time.Now().Add(upgradeIn)); err != nil {
		return nil, nil, err
	}
	if err := request.Write(conn); err != nil {
		return nil, nil, err
	}
	limited := &io.LimitedReader{R: conn, N: maxHead}
	buffered := bufio.NewReader(limited)
	response, err := http.ReadResponse(buffered, request)
	if err != nil {
		return nil, nil, err
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		limited.N = math.MaxInt64
		return nil, response, nil
	}
	if !strings.EqualFold(response.Header.Get("Upgrade"), Protocol) {
		return nil, nil, fmt.Errorf("the other side switched to %q, not to %s", response.Header.Get("Upgrade"), Protocol)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, nil, err
	}
	return carrier{conn, Rest(buffered, conn)}, response, nil
}

// Asked reports whether a request asks for a tunnel.
func Asked(r *http.Request) bool {
	return r.ProtoMajor == 1 && strings.EqualFold(r.Header.Get("Upgrade"), Protocol)
}

// Accept agrees to a request that asks for a tunnel and returns the connection
// that carries it.
func Accept(w http.ResponseWriter) (net.Conn, error) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	if err = conn.SetDeadline(time.Time{}); err == nil {
		_, err = io.WriteString(conn, switchingHead)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return carrier{conn, Rest(buffered.Reader, conn)}, nil
}

// carrier is a connection of which some bytes have been read already.
type carrier struct {
	net.Conn
	from io.Reader
}

func (c carrier) Read(p []byte) (int, error) { return c.from.Read(p) }

// Rest is what follows a head: what was read with it, then the connection. The
// reader that was used for the head must not be: one of a net/http server takes
// the end of what it reads for the end of the request.
func Rest(buffered *bufio.Reader, conn net.Conn) io.Reader {
	if buffered.Buffered() == 0 {
		return conn
	}
	early, _ := buffered.Peek(buffered.Buffered())
	return io.MultiReader(strings.NewReader(string(early)), conn)
}
