package front

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/innerdock/innerdock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a front with a daemon behind it that handler plays.
type rig struct {
	t      *testing.T
	front  *Front
	public string
	client *http.Client
	absent atomic.Pointer[error]
	walls  atomic.Int32 // that were asked for
}

func newRig(t *testing.T, handler http.HandlerFunc) *rig {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "private"))
	if err != nil {
		t.Fatal(err)
	}
	daemon := &http.Server{Handler: handler}
	var serving sync.WaitGroup
	serving.Go(func() { daemon.Serve(l) })
	r := newRigTo(t, nil, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", l.Addr().String())
	})
	t.Cleanup(func() {
		daemon.Close()
		serving.Wait()
	})
	return r
}

func newRigTo(t *testing.T, absent error, dial func(context.Context) (net.Conn, error)) *rig {
	t.Helper()
	r := &rig{t: t, public: filepath.Join(t.TempDir(), "docker.sock")}
	r.absent.Store(&absent)
	r.front = New(Config{Wait: func(context.Context) error { return *r.absent.Load() }, Dial: dial, NetworksChanged: func(context.Context) error {
		r.walls.Add(1)
		return nil
	}})
	l, err := Listen(r.public, os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	r.front.Serve(l)
	transport := &http.Transport{ExpectContinueTimeout: 10 * time.Second, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", r.public)
	}}
	r.client = &http.Client{Transport: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		r.front.Close()
	})
	return r
}

func (r *rig) do(method, path, body string, header ...string) (*http.Response, string) {
	r.t.Helper()
	req, _ := http.NewRequestWithContext(r.t.Context(), method, "http://docker"+path, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp, string(text)
}

// dial opens a raw connection to the public socket.
func (r *rig) dial() *net.UnixConn {
	r.t.Helper()
	conn, err := net.Dial("unix", r.public)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn.(*net.UnixConn)
}

// elsewhere is a connection to a server of the test's own whose handler is the front.
func (r *rig) elsewhere() net.Conn {
	r.t.Helper()
	server := httptest.NewServer(r.front)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close(); server.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn
}

func TestCallsPassAsTheyAre(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Api-Version", "1.45")
		w.Header().Set("Server", "Docker")
		w.WriteHeader(http.StatusTeapot)
		if r.Method != http.MethodHead {
			fmt.Fprintf(w, "%s %s %s %q %q", r.Method, r.RequestURI, r.Host, body, r.Header["X-Registry-Auth"])
		}
	})
	for _, c := range []struct{ method, path, body, want string }{
		{"GET", "/v1.45/containers/json?all=1&filters=%7B%22a%22%3A1%7D", "", `GET /v1.45/containers/json?all=1&filters=%7B%22a%22%3A1%7D docker "" ["secret"]`},
		{"GET", "/images/a%2Fb:c/json?x=a;b", "", `GET /images/a%2Fb:c/json?x=a;b docker "" ["secret"]`},
		{"POST", "/v1.45/containers/x//stop", "body", `POST /v1.45/containers/x//stop docker "body" ["secret"]`},
		{"HEAD", "/_ping", "", ""},
		{"DELETE", "/volumes/v", "", `DELETE /volumes/v docker "" ["secret"]`},
		{"GET", "/", "", `GET / docker "" ["secret"]`},
	} {
		resp, got := r.do(c.method, c.path, c.body, "X-Registry-Auth", "secret")
		if resp.StatusCode != http.StatusTeapot || got != c.want || resp.Header.Get("Api-Version") != "1.45" || resp.Header.Get("Server") != "Docker" {
			t.Errorf("%s %s: %s %q %v", c.method, c.path, resp.Status, got, resp.Header)
		}
	}
}

func TestTheSocketIsAsDockerds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "docker.sock")
	os.WriteFile(path, []byte("a stale one"), 0o644)
	l, err := Listen(path, 42)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Stat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o660 {
		t.Fatalf("%v %v", info, err)
	}
	if got := info.Sys().(*syscall.Stat_t).Gid; got != 42 {
		t.Errorf("its group is %d", got)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("it is not alone: %v", left)
	}
}

// What the daemon says reaches the client at once, however little it is.
func TestAStreamIsNotHeldBack(t *testing.T) {
	next := make(chan struct{})
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		http.NewResponseController(w).Flush()
		for i := range 3 {
			<-next
			fmt.Fprintln(w, "event", i)
			http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
		close(next)
	})
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://docker/events", nil)
	resp, err := r.client.Do(req) // the head came without a body
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for i := range 3 {
		next <- struct{}{}
		if line, err := lines.ReadString('\n'); line != fmt.Sprintln("event", i) {
			t.Fatalf("%q %v", line, err)
		}
	}
	cancel() // and the daemon is told that the client has gone
	<-next
}

// upgrade makes a raw stream of a call, as dockerd does.
func upgrade(w http.ResponseWriter, r *http.Request) (net.Conn, *bufio.ReadWriter) {
	io.Copy(io.Discard, r.Body)
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	if r.Header.Get("Upgrade") == "" {
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n")
	} else {
		io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: "+r.Header.Get("Upgrade")+"\r\n\r\n")
	}
	return conn, rw
}

// A client that ends its input still gets what comes after it, as in
// `docker run -i` at the end of a pipe.
func TestHijackedStreamsCloseHalf(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		conn, rw := upgrade(w, r)
		defer conn.Close()
		input, _ := io.ReadAll(rw)
		fmt.Fprintf(conn, "%d bytes, ", len(input))
		conn.Write(input)
	})
	sent := bytes.Repeat([]byte("0123456789abcdef"), 300<<10) // more than any buffer
	for _, c := range []struct{ call, head string }{
		{"POST /v1.45/containers/x/attach?stream=1 HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 101 UPGRADED\r\n"},
		{"POST /exec/x/start HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", "HTTP/1.1 200 OK\r\n"},
		{"POST /session HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", "HTTP/1.1 101 UPGRADED\r\n"},
		{"GET /containers/x/attach/ws HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "HTTP/1.1 101 UPGRADED\r\n"},
	} {
		conn := r.dial()
		// The first bytes come with the call, as eager clients send them.
		io.WriteString(conn, c.call+string(sent[:10]))
		reader := bufio.NewReader(conn)
		if line, err := reader.ReadString('\n'); line != c.head {
			t.Fatalf("%q %v; want %q", line, err, c.head)
		}
		for line := "x"; line != "\r\n"; {
			var err error
			if line, err = reader.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		var sending sync.WaitGroup
		sending.Go(func() {
			conn.Write(sent[10:])
			conn.CloseWrite()
		})
		got, err := io.ReadAll(reader)
		sending.Wait()
		if want := fmt.Sprintf("%d bytes, ", len(sent)); err != nil || !strings.HasPrefix(string(got), want) || !bytes.Equal(got[len(want):], sent) {
			t.Errorf("%.30q: %d bytes that begin %.30q, %v", c.call, len(got), got, err)
		}
	}
}

// A client that vanishes takes its connection to the daemon with it.
func TestAVanishedClientIsGoneForTheDaemon(t *testing.T) {
	gone := make(chan error)
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		conn, _ := upgrade(w, r)
		defer conn.Close()
		_, err := io.Copy(io.Discard, conn)
		for err == nil {
			_, err = io.WriteString(conn, "is anybody there\n")
		}
		gone <- err
	})
	conn := r.dial()
	io.WriteString(conn, "POST /containers/x/attach HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	<-gone
}

// A call that may be hijacked and is not: the connection serves the next one.
func TestAnOrdinaryAnswerToAttach(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, `{"message":"No such container: x"}`)
	})
	for range 2 {
		resp, body := r.do("POST", "/containers/x/attach", "", "Connection", "Upgrade", "Upgrade", "tcp")
		if resp.StatusCode != http.StatusNotFound || body != `{"message":"No such container: x"}` {
			t.Errorf("%s %q", resp.Status, body)
		}
	}
}

// Big bodies pass both ways, at the same time, and the connection ends after
// them: the next call is looked at again.
func TestBulk(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/get") {
			io.Copy(w, io.LimitReader(zeros{}, 8<<20))
			return
		}
		http.NewResponseController(w).EnableFullDuplex()
		n, _ := io.Copy(w, r.Body)
		fmt.Fprintf(w, " %d", n)
	})
	for _, known := range []bool{true, false} {
		req, _ := http.NewRequestWithContext(t.Context(), "POST", "http://docker/images/load", io.LimitReader(zeros{}, 8<<20))
		if known {
			req.ContentLength = 8 << 20
			req.Header.Set("Expect", "100-continue")
		}
		resp, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || len(body) != 8<<20+8 || !strings.HasSuffix(string(body), " 8388608") || !resp.Close {
			t.Errorf("%d bytes, %v, closes: %v", len(body), err, resp.Close)
		}
	}
	if resp, body := r.do("GET", "/v1.45/images/a/b/get", ""); len(body) != 8<<20 || !resp.Close {
		t.Errorf("%d bytes, closes: %v", len(body), resp.Close)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestWhatGVisorCannotDoIsRefused(t *testing.T) {
	var asked atomic.Int32
	r := newRig(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	for _, c := range []struct{ path, body, says string }{
		{"/containers/x/pause", "", "freezer"},
		{"/v1.45/containers/x/unpause", "", "freezer"},
		{"/v1.45/containers/x/checkpoints", "{}", "docker commit"},
		{"/v1.45/containers/x/start?checkpoint=c", "", "docker commit"},
		{"/v1.45/networks/create", `{"Name":"n","EnableIPv6":true}`, "--ipv6"},
		{"/v1.45/networks/create", `{"Name":"n","Driver":"macvlan"}`, "bridge"},
		{"/v1.45/networks/create", `{"Name":"n","driver":"ipvlan"}`, "bridge"},
		{"/v1.45/networks/create", `{"Name":"n","Options":{"com.docker.network.bridge.enable_icc":"false"}}`, "network of its own"},
	} {
		resp, body := r.do("POST", c.path, c.body)
		var answer struct{ Message string }
		if err := json.Unmarshal([]byte(body), &answer); err != nil || resp.StatusCode != http.StatusNotImplemented || !strings.Contains(answer.Message, c.says) {
			t.Errorf("%s: %s %q", c.path, resp.Status, body)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("the daemon was asked %d times", n)
	}
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/containers/x/pause", ""}, {"POST", "/containers/pause/start", ""}, {"POST", "/networks/create", `{"EnableIPv6":false,"Driver":"bridge"}`},
		{"POST", "/networks/create", `{"Options":{"com.docker.network.bridge.enable_icc":"true"}}`}, {"POST", "/networks/create", `not JSON`}, {"POST", "/networks/create", `[]`}, {"POST", "/containers/x/start?checkpoint=", ""},
	} {
		if resp, _ := r.do(c.method, c.path, c.body); resp.StatusCode != http.StatusOK {
			t.Errorf("%s %s: %s", c.method, c.path, resp.Status)
		}
	}
}

func TestTheWallsOfNetworksAreSeenTo(t *testing.T) {
	status := http.StatusCreated
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
	for body, want := range map[string]int32{
		`{"Name":"n"}`: 0, `{"Name":"n","Internal":true}`: 1, `{"Options":{"com.docker.network.bridge.name":"foo"}}`: 1,
	} {
		r.walls.Store(0)
		if resp, _ := r.do("POST", "/networks/create", body); resp.StatusCode != status || r.walls.Load() != want {
			t.Errorf("%s: %s, asked %d times", body, resp.Status, r.walls.Load())
		}
	}
	r.walls.Store(0)
	status = http.StatusConflict
	if r.do("POST", "/networks/create", `{"Internal":true}`); r.walls.Load() != 0 {
		t.Error("asked after a failure")
	}
}

func TestLimitsThatDoNotBindAreWarnedOf(t *testing.T) {
	const cpus = "Your kernel, gVisor's, does not enforce --cpus. Recorded, without effect; the sandbox's own cpu limit holds."
	for _, c := range []struct {
		path, body, answer string
		status             int
		want               string
	}{
		{"/v1.45/containers/create?name=x", `{"Image":"a","HostConfig":{"NanoCpus":500000000}}`, `{"Id":"abc","Warnings":[]}`, 201, `{"Id":"abc","Warnings":["` + cpus + `"]}`},
		{"/containers/create", `{"HostConfig":{"NanoCpus":1}}`, `{"Id":"abc","Warnings":["theirs"]}`, 201, `{"Id":"abc","Warnings":["theirs","` + cpus + `"]}`},
		{"/containers/create", `{"HostConfig":{"NanoCpus":1}}`, `{"Id":"abc","Warnings":null}`, 201, `{"Id":"abc","Warnings":["` + cpus + `"]}`},
		{"/containers/create", `{"HostConfig":{"NanoCpus":1}}`, `{"Id":"abc"}`, 201, `{"Id":"abc","Warnings":["` + cpus + `"]}`},
		{"/containers/create", `{"HostConfig":{"NanoCpus":1}}`, `{"message":"no"}`, 404, `{"message":"no"}`},
		{"/containers/create", `{"HostConfig":{"NanoCpus":1}}`, `[1]`, 201, `[1]`},
		{"/containers/create", `{"HostConfig":{"NanoCpus":1}}`, `{"Warnings":"x"}`, 201, `{"Warnings":"x"}`},
		{"/containers/create", `{"HostConfig":{"NanoCpus":0,"CpusetCpus":"","Memory":5}}`, `{"Id":"abc", "Warnings":[]}`, 201, `{"Id":"abc", "Warnings":[]}`},
		{"/containers/create", `{"HostConfig":{"NanoCpus":"x"}}`, `{"Id": 1}`, 201, `{"Id": 1}`},
		{"/containers/x/update", `{"CpuQuota":5,"CpuShares":3,"CpusetCpus":"0"}`, `{"Warnings":null}`, 200,
			`{"Warnings":["` + strings.Replace(cpus, "--cpus", "--cpu-quota, --cpu-shares, --cpuset-cpus", 1) + `"]}`},
	} {
		var got string
		r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			got = string(body)
			w.WriteHeader(c.status)
			io.WriteString(w, c.answer)
		})
		resp, body := r.do("POST", c.path, c.body)
		if resp.StatusCode != c.status || body != c.want || resp.ContentLength != int64(len(body)) {
			t.Errorf("%s: %s %s, want %s", c.body, resp.Status, body, c.want)
		}
		if got != c.body {
			t.Errorf("the daemon got %s; want %s", got, c.body)
		}
	}
}

// A daemon that is not there is told of in Docker's way, in every kind of call.
func TestTheDaemonThatIsNotThere(t *testing.T) {
	sleeps := innerdock.Errorf(innerdock.CodeUnavailable, "it sleeps")
	r := newRigTo(t, sleeps, func(context.Context) (net.Conn, error) { return nil, sleeps })
	for _, path := range []string{"/_ping", "/containers/x/attach", "/images/load"} {
		req, _ := http.NewRequestWithContext(t.Context(), "POST", "http://docker"+path, struct{ io.Reader }{strings.NewReader("x")})
		resp, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusServiceUnavailable || string(body) != `{"message":"it sleeps"}`+"\n" || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %s %q", path, resp.Status, body)
		}
	}
}

// A connection that is there does not spare a call the wait.
func TestEveryCallWaits(t *testing.T) {
	r := newRig(t, func(http.ResponseWriter, *http.Request) {})
	if resp, _ := r.do("GET", "/_ping", ""); resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	restarts := error(innerdock.Errorf(innerdock.CodeUnavailable, "containerd is away"))
	r.absent.Store(&restarts)
	if resp, body := r.do("GET", "/_ping", ""); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "containerd is away") {
		t.Errorf("%s %q", resp.Status, body)
	}
}

// A daemon that dies in the middle of a call.
func TestTheDaemonThatDies(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		conn, _, _ := http.NewResponseController(w).Hijack()
		conn.Close()
	})
	resp, body := r.do("POST", "/containers/x/stop", "")
	if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "went away") || !strings.Contains(body, "try once more") {
		t.Errorf("%s %q", resp.Status, body)
	}
}

// Close ends whatever is under way: a call that waits, a stream, a hijacked one.
func TestCloseEndsAll(t *testing.T) {
	entered := make(chan struct{}, 3)
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		if r.Header.Get("Upgrade") != "" {
			conn, _ := upgrade(w, r)
			defer conn.Close()
			io.Copy(io.Discard, conn)
			return
		}
		<-r.Context().Done()
	})
	var calls sync.WaitGroup
	for _, call := range []string{"GET /events HTTP/1.1\r\n", "POST /session HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n", "GET /images/a/get HTTP/1.1\r\n"} {
		conn := r.dial()
		io.WriteString(conn, call+"Host: docker\r\n\r\n")
		<-entered
		calls.Go(func() { io.Copy(io.Discard, conn) })
	}
	r.front.Close()
	calls.Wait()
	late := r.elsewhere()
	io.WriteString(late, "GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")
	if _, err := late.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a call after Close: %v", err)
	}
}

// Who comes in by another server than the public socket's is served like the others.
func TestAnotherServersCalls(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/session" {
			io.WriteString(w, "OK")
			return
		}
		conn, rw := upgrade(w, r)
		defer conn.Close()
		io.Copy(conn, rw)
	})
	near := r.elsewhere()
	reader := bufio.NewReader(near)
	for range 2 {
		io.WriteString(near, "GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(resp.Body); string(body) != "OK" {
			t.Errorf("%q", body)
		}
	}
	io.WriteString(near, "POST /session HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
	if resp, err := http.ReadResponse(reader, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	io.WriteString(near, "echo")
	if got := make([]byte, 4); func() bool { io.ReadFull(reader, got); return string(got) != "echo" }() {
		t.Errorf("%q", got)
	}
}

func FuzzCall(f *testing.F) {
	for _, path := range []string{"", "/", "//", "/v", "/v1", "/v1.45/containers/x/pause", "/containers//start", "*"} {
		f.Add("POST", path)
	}
	f.Fuzz(func(_ *testing.T, method, path string) {
		r := &http.Request{Method: method, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: http.NoBody}
		r.URL = &url.URL{Path: path}
		call := callOf(r)
		call.hijacks(r)
		call.bulk(r)
	})
}

// Chunks that are here together go on as one; what follows the body is as it was.
func TestChunksBecomeLarge(t *testing.T) {
	const rest = "Trailer: x\r\n\r\nwhat comes next"
	var sent bytes.Buffer
	var body strings.Builder
	for i := range 1000 {
		piece := strings.Repeat("x", i)
		body.WriteString(piece)
		if i > 0 {
			fmt.Fprintf(&sent, "%X;extension\r\n%s\r\n", i, piece)
		}
	}
	sent.WriteString("0\r\n" + rest)
	var passed bytes.Buffer
	if _, err := io.CopyBuffer(struct{ io.Writer }{&passed}, newChunks(&sent), make([]byte, 128<<10)); err != nil {
		t.Fatal(err)
	}
	heads := regexp.MustCompile(`(?m)^[0-9a-f]{8}\r$`).FindAllString(passed.String(), -1)
	if len(heads) > 8 { // of half a megabyte
		t.Errorf("it goes on in %d chunks", len(heads))
	}
	from := bufio.NewReader(&passed)
	got, err := io.ReadAll(httputil.NewChunkedReader(from))
	if err != nil || string(got) != body.String() {
		t.Errorf("%d bytes of %d, %v", len(got), body.Len(), err)
	}
	if got, _ := io.ReadAll(from); string(got) != rest {
		t.Errorf("after the body: %q", got)
	}
}

// A body that is no chunks, or stops within one, is for the daemon to judge.
func TestABrokenBody(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		http.Error(w, fmt.Sprintf("%s, %v", body, err), http.StatusBadRequest)
	})
	for _, body := range []string{"5\r\nhello\r\nnonsense\r\n", "5\r\nhello\r\n5\r\n"} {
		conn := r.dial()
		io.WriteString(conn, "POST /images/load HTTP/1.1\r\nHost: docker\r\nTransfer-Encoding: chunked\r\n\r\n"+body)
		conn.CloseWrite()
		answer, err := io.ReadAll(conn)
		if err != nil || !strings.Contains(string(answer), "400 Bad Request") || !strings.Contains(string(answer), "hello, unexpected EOF") {
			t.Errorf("%q: %q, %v", body, answer, err)
		}
	}
}
