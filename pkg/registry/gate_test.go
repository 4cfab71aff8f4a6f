package registry

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// lane is a gated cache, and the addresses of two sandboxes and of a stranger.
type lane struct {
	*mirror
	gate    *gate
	address string
}

const (
	abuser   = "127.0.0.2"
	neighbor = "127.0.0.3"
	stranger = "127.0.0.4"
)

func newLane(t *testing.T, cfg Config) lane {
	t.Helper()
	m := newMirror(t, cfg)
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	g := newGate(listener, func(a netip.Addr) (string, bool) { return a.String(), a.String() != stranger })
	stop := g.serve(t.Context(), m.cache)
	t.Cleanup(func() { _ = stop() })
	return lane{m, g, listener.Addr().String()}
}

func (l lane) dial(from string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: time.Minute, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	return dialer.DialContext(l.t.Context(), "tcp4", l.address)
}

// ask sends a request line and headers, and leaves the answer unread.
func (l lane) ask(from, request string) net.Conn {
	l.t.Helper()
	conn, err := l.dial(from)
	must(l.t, err)
	l.t.Cleanup(func() { _ = conn.Close() })
	_, err = io.WriteString(conn, request)
	must(l.t, err)
	return conn
}

func getLine(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: cache\r\n\r\n" }

// answer reads what a connection gets.
func answer(t *testing.T, conn net.Conn) (*http.Response, error) {
	must(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	return http.ReadResponse(bufio.NewReader(conn), nil)
}

// works fetches a path as the neighbour and tells how long that took.
func (l lane) works(path string) time.Duration {
	l.t.Helper()
	began := time.Now()
	conn := l.ask(neighbor, getLine(path))
	response, err := answer(l.t, conn)
	must(l.t, err)
	if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != http.StatusOK {
		l.t.Errorf("the neighbour gets %s of %s, %v", response.Status, path, err)
	}
	_ = conn.Close()
	return time.Since(began)
}

func TestManyConnectionsOfOneSandbox(t *testing.T) {
	h := newHub(t)
	img := h.push("library/thing", "1", 1000)
	_, layer := layerOf(t, img)
	l := newLane(t, Config{Upstreams: []string{h.server.URL}})
	refused, all := 0, []net.Conn{}
	for range maxConns + 200 {
		conn, err := l.dial(abuser)
		if err != nil { // closed at once
			refused++
			continue
		}
		t.Cleanup(func() { _ = conn.Close() })
		all = append(all, conn)
	}
	for _, conn := range all {
		if closed(conn) {
			refused++
		}
	}
	if refused != 200 {
		t.Errorf("%d of %d connections were refused, want 200", refused, maxConns+200)
	}
	l.works("/v2/library/thing/blobs/" + layer)
	conn, err := l.dial(stranger)
	if err != nil {
		return // closed at once
	}
	defer func() { _ = conn.Close() }()
	if _, err := answer(t, conn); err == nil {
		t.Error("who is no sandbox got an answer")
	}
}

// closed tells whether the other end has closed a connection.
func closed(conn net.Conn) bool {
	_ = conn.SetReadDeadline(time.Now().Add(2 * time.Millisecond))
	_, err := conn.Read(make([]byte, 1))
	var timeout net.Error
	return !errors.As(err, &timeout) || !timeout.Timeout()
}

// One sandbox asks for large blobs on all of its connections and reads nothing.
func TestSlowReadersOfOneSandbox(t *testing.T) {
	h := newHub(t)
	big, small := h.push("library/big", "1", 16<<20), h.push("library/thing", "1", 1000)
	_, bigLayer := layerOf(t, big)
	_, layer := layerOf(t, small)
	l := newLane(t, Config{Upstreams: []string{h.server.URL}})
	for range maxConns {
		l.ask(abuser, getLine("/v2/library/big/blobs/"+bigLayer))
	}
	guest := l.guest(abuser)
	waitFor(t, "all that it may have at a time", func() bool { return len(guest.slots) == maxRequests })
	if took := l.works("/v2/library/thing/blobs/" + layer); took > 30*time.Second {
		t.Errorf("the neighbour waited %v", took)
	}
}

// guest is what the gate knows of a sandbox that is connected.
func (l lane) guest(from string) *guest {
	l.t.Helper()
	var found *guest
	waitFor(l.t, "the sandbox to be known", func() bool {
		l.gate.mu.Lock()
		defer l.gate.mu.Unlock()
		found = l.gate.guests[from]
		return found != nil
	})
	return found
}

// One sandbox asks for many names that do not exist: each goes upstream, so after
// some it has to wait, and nobody else.
func TestManyQuestionsWithoutAnAnswer(t *testing.T) {
	h := newHub(t)
	img := h.push("library/thing", "1", 1000)
	_, layer := layerOf(t, img)
	l := newLane(t, Config{Upstreams: []string{h.server.URL}})
	const burst = int(refusalBurst / refusalEvery)
	began := time.Now()
	conn := l.ask(abuser, "")
	reader := bufio.NewReader(conn)
	asked := 0
	ask := func() {
		_, err := io.WriteString(conn, getLine(fmt.Sprintf("/v2/nosuch/n%d/manifests/1", asked)))
		must(t, err)
		response, err := http.ReadResponse(reader, nil)
		must(t, err)
		_, _ = io.Copy(io.Discard, response.Body)
		if response.StatusCode != http.StatusNotFound {
			t.Fatalf("%s", response.Status)
		}
		asked++
	}
	for range burst {
		ask()
	}
	for slow := time.Now(); time.Since(slow) < time.Second; {
		ask()
	}
	if most := burst + int(time.Since(began)/refusalEvery) + 2; asked > most {
		t.Errorf("it had %d answers in %v; want about %d at once and then one in %v", asked, time.Since(began), burst, refusalEvery)
	}
	l.works("/v2/library/thing/blobs/" + layer)
}

func TestHostileRequests(t *testing.T) {
	h := newHub(t)
	img := h.push("library/thing", "1", 1000)
	_, layer := layerOf(t, img)
	l := newLane(t, Config{Upstreams: []string{h.server.URL}})
	long := strings.Repeat("a", 300)
	for name, request := range map[string]string{
		"a flood of headers": "GET /v2/ HTTP/1.1\r\nHost: cache\r\n" + strings.Repeat("X-"+long+": "+long+"\r\n", 200) + "\r\n",
		"a long path":        getLine("/v2/" + strings.Repeat(long+"/", 20) + "manifests/1"),
		"a climbing name":    getLine("/v2/../../../../etc/manifests/passwd"),
		"an encoded one":     getLine("/v2/%2e%2e/%2e%2e/%2e%2e/etc/manifests/passwd"),
		"a climbing digest":  getLine("/v2/library/thing/blobs/sha256:..%2f..%2f..%2fetc%2fpasswd"),
		"a null byte":        getLine("/v2/library/thing%00/manifests/1"),
		"another host":       "GET http://169.254.169.254/v2/library/x/blobs/../latest HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n",
		"a tunnel":           "CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: 169.254.169.254:80\r\n\r\n",
		"a body":             "PUT /v2/library/thing/manifests/1 HTTP/1.1\r\nHost: cache\r\nContent-Length: 1000000000\r\n\r\n" + long,
		"a grant's file":     getLine("/v2/library/thing/_public/blobs/" + layer),
		"no HTTP":            "\x00\x01\x02\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			before := h.requests.Load()
			response, err := answer(t, l.ask(abuser, request))
			must(t, err)
			if response.StatusCode < 400 || response.StatusCode >= 500 {
				t.Errorf("it gets %s", response.Status)
			}
			if h.requests.Load() != before {
				t.Error("upstream was asked")
			}
		})
	}
	ranges := "Range: bytes=" + strings.Repeat("0-1,", 1000) + "0-1\r\n"
	response, err := answer(t, l.ask(abuser, "GET /v2/library/thing/blobs/"+layer+" HTTP/1.1\r\nHost: cache\r\n"+ranges+"\r\n"))
	must(t, err)
	if length := response.ContentLength; length > 4096 {
		t.Errorf("a thousand ranges of a small blob are %d bytes", length)
	}
	l.works("/v2/library/thing/blobs/" + layer)
}
