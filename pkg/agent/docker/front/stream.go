package front

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/tunnel"
)

// stream passes a call after which the connection may belong to its two ends:
// attach, exec, and BuildKit's sessions. The daemon decides whether it does.
func (f *Front) stream(w http.ResponseWriter, r *http.Request) {
	body, err := readAll(w, r)
	if err != nil {
		fail(w, err)
		return
	}
	daemon, err := f.cfg.Dial(r.Context())
	if err != nil {
		fail(w, err)
		return
	}
	defer f.track(daemon)()
	vanished := context.AfterFunc(r.Context(), func() { daemon.Close() })
	defer vanished()

	out := r.Clone(r.Context())
	out.Body, out.ContentLength, out.TransferEncoding = bodyOf(body), int64(len(body)), nil
	out.Header.Del("Expect") // it is here
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = []string{""} // none of Go's
	}
	if err := out.Write(daemon); err != nil {
		fail(w, err)
		return
	}
	reader := bufio.NewReaderSize(daemon, bufferSize)
	resp, err := http.ReadResponse(reader, r)
	if err != nil {
		fail(w, err)
		return
	}
	if !hijacked(resp) {
		defer resp.Body.Close()
		answer(w, resp)
		return
	}
	if !vanished() { // from here on, the client's half of the connection may end
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		fail(w, err)
		return
	}
	defer f.track(conn)()
	if writeHead(conn, "HTTP/1.1 "+resp.Status, resp.Header) == nil {
		join(conn, tunnel.Rest(buffered.Reader, conn), daemon, tunnel.Rest(reader, daemon))
	}
}

// pass passes one call and its answer without a look at what is in their bodies,
// and ends the connection after them.
func (f *Front) pass(w http.ResponseWriter, r *http.Request) {
	daemon, err := f.cfg.Dial(r.Context())
	if err != nil {
		fail(w, err)
		return
	}
	defer f.track(daemon)()
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		fail(w, err)
		return
	}
	defer f.track(conn)()
	header := r.Header.Clone()
	header.Set("Host", r.Host)
	header.Set("Connection", "close") // the next call is looked at again
	body := tunnel.Rest(buffered.Reader, conn)
	if r.ContentLength < 0 {
		header.Set("Transfer-Encoding", "chunked")
		body = newChunks(body)
	}
	if writeHead(daemon, r.Method+" "+r.RequestURI+" HTTP/1.1", header) == nil {
		join(conn, body, daemon, daemon)
	}
}

func writeHead(w io.Writer, first string, header http.Header) error {
	head := bytes.NewBufferString(first + "\r\n")
	_ = header.Write(head) // to memory
	head.WriteString("\r\n")
	_, err := w.Write(head.Bytes())
	return err
}

// hijacked reports whether what follows a response is no HTTP any more. Clients
// that do not ask for an upgrade are told so by the type alone.
func hijacked(resp *http.Response) bool {
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return true
	}
	kind := resp.Header.Get("Content-Type")
	return resp.StatusCode == http.StatusOK && resp.ContentLength < 0 && len(resp.TransferEncoding) == 0 &&
		(strings.HasPrefix(kind, "application/vnd.docker.raw-stream") || strings.HasPrefix(kind, "application/vnd.docker.multiplexed-stream"))
}

// answer passes an ordinary response.
func answer(w http.ResponseWriter, resp *http.Response) {
	maps.Copy(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	buffer := tunnel.Buffers{}.Get()
	defer tunnel.Buffers{}.Put(buffer)
	_, _ = io.CopyBuffer(flusher{w, http.NewResponseController(w)}, struct{ io.Reader }{resp.Body}, buffer)
}

type flusher struct {
	io.Writer
	*http.ResponseController
}

func (f flusher) Write(p []byte) (int, error) {
	n, err := f.Writer.Write(p)
	if err != nil {
		return n, err
	}
	return n, f.Flush()
}

// side is one end of a stream, of which some was read already.
type side struct {
	net.Conn
	rest io.Reader
}

func (s side) Read(p []byte) (int, error) { return s.rest.Read(p) }

// NetConn is for who asks whether the other side is gone.
func (s side) NetConn() net.Conn { return s.Conn }

func (s side) CloseWrite() error {
	if half, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return s.Close()
}

// join carries bytes both ways until both have ended, or one side is gone, and
// closes both. What comes from each is read from its reader.
func join(client net.Conn, sent io.Reader, daemon net.Conn, answer io.Reader) {
	widen(client)
	widen(daemon)
	_ = tunnel.Join(side{client, sent}, side{daemon, answer}) // both have seen how it ended
}

// widen lets a socket hold more: its two ends then take turns less often, which
// is most of what a copy costs here.
func widen(conn net.Conn) {
	if socket, ok := conn.(*net.UnixConn); ok {
		_ = socket.SetReadBuffer(socketBuffer)
		_ = socket.SetWriteBuffer(socketBuffer)
	}
}

// track lets Close close c. What it returns closes c and forgets it.
func (f *Front) track(c io.Closer) (done func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.streams[c] = struct{}{}
	if f.closed {
		c.Close()
	}
	return func() {
		f.mu.Lock()
		delete(f.streams, c)
		f.mu.Unlock()
		c.Close()
	}
}

// readAll reads the body of a call that is looked into.
func readAll(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, innerdock.Errorf(innerdock.CodeUnavailable, "reading the call: %w", err)
	}
	return body, nil
}

func bodyOf(content []byte) io.ReadCloser {
	if len(content) == 0 {
		return http.NoBody
	}
	return io.NopCloser(bytes.NewReader(content))
}
