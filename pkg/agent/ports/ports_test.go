package ports

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/tunnel"
	"github.com/innerdock/innerdock/test/freeport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const limit = 30 * time.Second

// daemon is a Docker whose containers are the ports that they publish.
type daemon struct {
	socket string

	mu     sync.Mutex
	ports  []int
	events map[chan struct{}]struct{}
	lists  int
}

// rig is a sandbox's ways, with a daemon behind them.
type rig struct {
	*daemon
	t       *testing.T
	address string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	d := &daemon{socket: filepath.Join(t.TempDir(), "docker.sock"), events: map[chan struct{}]struct{}{}}
	listener, err := net.Listen("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	docker := &http.Server{Handler: d}
	var serving sync.WaitGroup
	serving.Go(func() { _ = docker.Serve(listener) })
	mux := http.NewServeMux()
	New(Config{API: d, Docker: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", d.socket)
	}}).Register(mux)
	ctx, cancel := context.WithCancel(context.Background())
	agent := httptest.NewUnstartedServer(mux)
	agent.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	agent.Start()
	t.Cleanup(func() { cancel(); agent.Close(); docker.Close(); serving.Wait() })
	return &rig{daemon: d, t: t, address: agent.Listener.Addr().String()}
}

func (d *daemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/events":
		d.follow(w, r)
	case r.URL.Path == "/containers/json":
		d.list(w)
	case strings.HasSuffix(r.URL.Path, "/start"):
		if r.URL.Path == "/v1.45/containers/missing/start" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		d.publish(18080)
		w.WriteHeader(http.StatusNoContent)
	default:
		io.WriteString(w, "OK")
	}
}

func (d *daemon) list(w http.ResponseWriter) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lists++
	type port struct {
		PublicPort int
		Type       string
	}
	containers := []map[string][]port{{"Ports": {{PublicPort: 53, Type: "udp"}, {Type: "tcp"}}}}
	for _, p := range d.ports { // twice: IPv4 and IPv6
		containers = append(containers, map[string][]port{"Ports": {{PublicPort: p, Type: "tcp"}, {PublicPort: p, Type: "tcp"}}})
	}
	json.NewEncoder(w).Encode(containers)
}

func (d *daemon) follow(w http.ResponseWriter, r *http.Request) {
	news := make(chan struct{}, 10)
	d.mu.Lock()
	d.events[news] = struct{}{}
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		delete(d.events, news)
		d.mu.Unlock()
	}()
	_ = http.NewResponseController(w).Flush()
	for {
		select {
		case <-news:
			fmt.Fprintln(w, `{"Action":"start"}`)
			_ = http.NewResponseController(w).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// publish makes the daemon publish these ports and tell of it.
func (d *daemon) publish(ports ...int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ports = ports
	for news := range d.events {
		news <- struct{}{}
	}
}

func (d *daemon) followers() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.events)
}

// ask asks for a tunnel. Without one, the error is the agent's.
func (r *rig) ask(path string) (*tunnel.Conn, error) {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	request, err := http.NewRequest(http.MethodGet, "http://agent"+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	carrier, response, err := tunnel.Request(conn, request)
	if err != nil {
		r.t.Fatal(err)
	}
	if carrier == nil {
		defer response.Body.Close()
		refusal := &innerdock.Error{}
		if err := json.NewDecoder(response.Body).Decode(refusal); err != nil {
			r.t.Fatal(err)
		}
		return nil, refusal
	}
	end := tunnel.New(carrier)
	end.SetDeadline(time.Now().Add(limit))
	return end, nil
}

func (r *rig) tunnel(path string) *tunnel.Conn {
	r.t.Helper()
	conn, err := r.ask(path)
	if err != nil {
		r.t.Fatal(err)
	}
	return conn
}

// outsider is a forwarder that is told of ports.
type outsider struct {
	t    *testing.T
	conn *tunnel.Conn
	news *json.Decoder
}

func (r *rig) watch() *outsider {
	conn := r.tunnel("/docker/ports")
	return &outsider{r.t, conn, json.NewDecoder(conn)}
}

// next is what it is told; it has not acted on it.
func (w *outsider) next() innerdock.PublishedPorts {
	w.t.Helper()
	var published innerdock.PublishedPorts
	if err := w.news.Decode(&published); err != nil {
		w.t.Fatal(err)
	}
	return published
}

func (w *outsider) heard(published innerdock.PublishedPorts) {
	json.NewEncoder(w.conn).Encode(innerdock.PublishedPorts{Version: published.Version})
}

// call makes a call of the Docker API in a tunnel and returns the answer to come.
func (r *rig) call(method, path string) <-chan string {
	conn := r.tunnel("/docker/connect")
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\n\r\n", method, path)
	answered := make(chan string, 1)
	go func() {
		defer conn.Close()
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			answered <- err.Error()
			return
		}
		response.Body.Close()
		answered <- response.Status
	}()
	return answered
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

func TestAPortIsReachedAndEndsByHalves(t *testing.T) {
	r := newRig(t)
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		if conn, err := listener.Accept(); err == nil {
			defer conn.Close()
			said, _ := io.ReadAll(conn)
			conn.Write(append(said, " and back"...))
		}
	}()
	conn := r.tunnel(fmt.Sprintf("/ports/%d/connect", listener.Addr().(*net.TCPAddr).Port))
	io.WriteString(conn, "there")
	conn.CloseWrite()
	if got, err := io.ReadAll(conn); string(got) != "there and back" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestWhatCannotBeReachedSaysWhy(t *testing.T) {
	r := newRig(t)
	nobody := fmt.Sprint(freeport.Get(t))
	for port, want := range map[string]innerdock.Code{
		nobody: innerdock.CodeUnavailable, "0": innerdock.CodeInvalid, "65536": innerdock.CodeInvalid, "-1": innerdock.CodeInvalid, "http": innerdock.CodeInvalid,
	} {
		if _, err := r.ask("/ports/" + port + "/connect"); innerdock.CodeOf(err) != want {
			t.Errorf("port %s: %v", port, err)
		}
	}
	for _, path := range []string{"/ports/80/connect", "/docker/ports", "/docker/connect"} {
		response, err := http.Get("http://" + r.address + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		http.DefaultClient.CloseIdleConnections()
		if response.StatusCode/100 == 2 {
			t.Errorf("%s without a tunnel: %s", path, response.Status)
		}
	}
}

func TestAWatcherHearsEveryChange(t *testing.T) {
	r := newRig(t)
	r.publish(9000, 80)
	w := r.watch()
	last := w.next()
	if !slices.Equal(last.Ports, []int{80, 9000}) || !slices.Equal(last.UDP, []int{53}) {
		t.Errorf("at first %v", last)
	}
	for _, ports := range [][]int{{443}, {}, {443, 8443}} {
		r.publish(ports...)
		now := w.next()
		if now.Version <= last.Version || !slices.Equal(now.Ports, ports) && len(now.Ports)+len(ports) > 0 {
			t.Errorf("after %v it hears %v, and heard %v before", ports, now, last)
		}
		last = now
	}
	w.conn.Close()
	eventually(t, "nobody follows Docker's events for a watcher that is gone", func() bool { return r.followers() == 0 })
}

// A start is answered when every watcher listens for what it published.
func TestAStartIsHeldUntilItsPortIsListenedFor(t *testing.T) {
	r := newRig(t)
	one, other := r.watch(), r.watch()
	for _, w := range []*outsider{one, other} {
		w.heard(w.next())
	}
	answered := r.call(http.MethodPost, "/v1.45/containers/web/start")
	first, second := one.next(), other.next()
	if !slices.Equal(first.Ports, []int{18080}) || !slices.Equal(second.Ports, first.Ports) {
		t.Fatalf("the watchers hear %v and %v", first, second)
	}
	one.heard(first)
	select {
	case status := <-answered:
		t.Fatalf("the start was answered (%s) while one does not listen", status)
	case <-time.After(100 * time.Millisecond):
	}
	other.heard(second)
	if status := <-answered; status != "204 No Content" {
		t.Errorf("the start is answered %s", status)
	}
}

// A watcher that vanishes holds nobody up, nor does a start that failed wait.
func TestAWatcherThatVanishes(t *testing.T) {
	r := newRig(t)
	w := r.watch()
	w.heard(w.next())
	if status := <-r.call(http.MethodPost, "/v1.45/containers/missing/start"); status != "404 Not Found" {
		t.Errorf("the start of what is not there: %s", status)
	}
	if status := <-r.call(http.MethodPost, "/containers/web/restart"); status != "200 OK" { // it publishes nothing new
		t.Errorf("a restart is answered %s", status)
	}
	answered := r.call(http.MethodPost, "/containers/web/start")
	w.next() // and does not say that it heard
	w.conn.Close()
	began := time.Now()
	if status := <-answered; status != "204 No Content" || time.Since(began) > hearTimeout {
		t.Errorf("the start is answered %s after %v", status, time.Since(began))
	}
}

// Without watchers nobody asks Docker for ports.
func TestNobodyWatches(t *testing.T) {
	r := newRig(t)
	if status := <-r.call(http.MethodPost, "/containers/web/start"); status != "204 No Content" {
		t.Errorf("the start is answered %s", status)
	}
	if r.lists > 0 {
		t.Errorf("Docker was asked %d times for its ports", r.lists)
	}
}

func TestWatchersAreCapped(t *testing.T) {
	r := newRig(t)
	r.publish(80)
	var watchers []*outsider
	for range maxWatchers {
		w := r.watch()
		w.next()
		watchers = append(watchers, w)
	}
	if got, err := io.ReadAll(r.tunnel("/docker/ports")); len(got) > 0 || err == nil {
		t.Errorf("one too many is told %q, %v", got, err)
	}
	watchers[0].conn.Close()
	eventually(t, "there is room for another", func() bool {
		w := r.watch()
		var published innerdock.PublishedPorts
		return w.news.Decode(&published) == nil
	})
}
