package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/server/servertest"
	"github.com/innerdock/innerdock/pkg/tunnel"
)

// dockerd stands for the Docker daemon where what matters is what is between it
// and its clients: the real one is in test/e2e.
type dockerd struct {
	events   chan struct{} // an event each
	mu       sync.Mutex
	ports    []int
	attached int // connections that were taken over and not closed yet
}

// newDockerd serves on the socket of a sandbox.
func newDockerd(t *testing.T, r *rig, sandbox innerdock.Sandbox) *dockerd {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(r.backend.Dir(sandbox.ID), servertest.DockerdSocket))
	if err != nil {
		t.Fatal(err)
	}
	d := &dockerd{events: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containers/json", func(w http.ResponseWriter, _ *http.Request) {
		d.mu.Lock()
		defer d.mu.Unlock()
		type port struct {
			PublicPort int
			Type       string
		}
		var ports []port
		for _, p := range d.ports {
			ports = append(ports, port{p, "tcp"}, port{p, "udp"})
		}
		json.NewEncoder(w).Encode([]map[string]any{{"Ports": ports}})
	})
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).Flush()
		for {
			select {
			case <-d.events:
				io.WriteString(w, "{}\n")
				http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				return
			}
		}
	})
	mux.HandleFunc("POST /v1.43/containers/{id}/start", func(w http.ResponseWriter, r *http.Request) {
		d.publish(8080)
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /v1.43/containers/{id}/attach", d.attach)
	mux.HandleFunc("POST /v1.43/exec/{id}/start", d.attach)
	mux.HandleFunc("POST /v1.43/build", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err)
	})
	server := &http.Server{Handler: mux}
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(listener) })
	t.Cleanup(func() { server.Close(); serving.Wait() })
	return d
}

func (d *dockerd) publish(ports ...int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ports = ports
}

// attach echoes in upper case until the client's direction has ended, and says so.
// A client that does not ask for an upgrade gets the old answer, of no length.
func (d *dockerd) attach(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	d.count(1)
	go func() {
		defer d.count(-1)
		defer conn.Close()
		head := "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
		if r.Header.Get("Upgrade") != "" {
			head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
		}
		io.WriteString(conn, head)
		lines := bufio.NewScanner(buffered)
		for lines.Scan() {
			fmt.Fprintln(conn, strings.ToUpper(lines.Text()))
		}
		if lines.Err() == nil {
			io.WriteString(conn, "the end\n")
		}
	}()
}

func (d *dockerd) count(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.attached += n
}

func (d *dockerd) live() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.attached
}

// withDocker is a sandbox with such a daemon.
func (r *rig) withDocker() (innerdock.Sandbox, *dockerd) {
	r.t.Helper()
	sandbox := r.create(innerdock.SandboxSpec{Name: "box", Docker: innerdock.DockerSpec{Enabled: true}})
	return sandbox, newDockerd(r.t, r, sandbox)
}

// dials are the ways to a sandbox's Docker.
func (r *rig) dials(sandbox innerdock.Sandbox) map[string]func(context.Context) (net.Conn, error) {
	_, remote := r.key(innerdock.DefaultTenant)
	return map[string]func(context.Context) (net.Conn, error){
		"socket":       func(context.Context) (net.Conn, error) { return net.Dial("unix", r.dockerSocket(sandbox)) },
		"local client": func(ctx context.Context) (net.Conn, error) { return r.client.DialDocker(ctx, sandbox.ID) },
		"over TCP":     func(ctx context.Context) (net.Conn, error) { return remote.DialDocker(ctx, "box") },
	}
}

func (r *rig) dockerSocket(sandbox innerdock.Sandbox) string {
	return filepath.Join(filepath.Dir(r.socket), "docker", sandbox.ID+".sock")
}

// post sends a request on conn and reads the answer's head.
func post(t *testing.T, conn net.Conn, path, body string, header ...string) (*http.Response, *bufio.Reader) {
	t.Helper()
	request := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: docker\r\nContent-Length: %d\r\n%s\r\n%s", path, len(body), strings.Join(header, ""), body)
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	return response, reader
}

const upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n"

func TestHijackedConnectionsHaveTwoEnds(t *testing.T) {
	r := newRig(t)
	sandbox, dockerd := r.withDocker()
	for name, dial := range r.dials(sandbox) {
		for path, header := range map[string]string{"/v1.43/containers/x/attach": upgrade, "/v1.43/exec/x/start": ""} {
			conn, err := dial(t.Context())
			if err != nil {
				t.Fatal(name, err)
			}
			response, reader := post(t, conn, path, "{}", header)
			if want := map[string]int{upgrade: 101, "": 200}[header]; response.StatusCode != want {
				t.Fatalf("%s, %s: %s, want %d", name, path, response.Status, want)
			}
			io.WriteString(conn, "hello\n")
			if line, err := reader.ReadString('\n'); line != "HELLO\n" || err != nil {
				t.Errorf("%s: %q, %v", name, line, err)
			}
			if err := conn.(tunnel.Stream).CloseWrite(); err != nil {
				t.Error(err)
			}
			if rest, err := io.ReadAll(reader); string(rest) != "the end\n" || err != nil {
				t.Errorf("%s: after the end of its input Docker says %q, %v", name, rest, err)
			}
			conn.Close()
		}
	}
	eventually(t, "all is closed", func() bool { return dockerd.live() == 0 })
}

// goleak of this package finds what is left of a client, and so does dockerd.
func TestAClientThatVanishesLeavesNothing(t *testing.T) {
	r := newRig(t)
	sandbox, dockerd := r.withDocker()
	for name, dial := range r.dials(sandbox) {
		conn, err := dial(t.Context())
		if err != nil {
			t.Fatal(name, err)
		}
		post(t, conn, "/v1.43/containers/x/attach", "", upgrade)
		if dockerd.live() != 1 {
			t.Errorf("%s: %d are attached", name, dockerd.live())
		}
		conn.Close()
		eventually(t, name+": Docker is told", func() bool { return dockerd.live() == 0 })
	}
}

func TestLargeBodiesPass(t *testing.T) {
	r := newRig(t)
	sandbox, _ := r.withDocker()
	for name, dial := range r.dials(sandbox) {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}}
		response, err := client.Post("http://docker/v1.43/build", "application/x-tar", io.LimitReader(zeros{}, 20<<20))
		if err != nil {
			t.Fatal(name, err)
		}
		got, err := io.ReadAll(response.Body)
		response.Body.Close()
		if string(got) != "20971520<nil>" && string(got) != "20971520 <nil>" || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A container's start is answered when its ports are listened for, not before.
func TestAStartWaitsForWhoForwardsItsPorts(t *testing.T) {
	r := newRig(t)
	sandbox, dockerd := r.withDocker()
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	defer following.Wait()
	defer cancel()
	heard, acted := make(chan []int, 4), make(chan struct{})
	following.Go(func() {
		err := r.client.FollowPorts(ctx, sandbox.ID, func(published innerdock.PublishedPorts) {
			heard <- published.Ports
			if slices.Contains(published.Ports, 8080) {
				<-acted
			}
		})
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	if first := <-heard; len(first) != 0 {
		t.Errorf("at first %v are published", first)
	}
	dockerd.publish(9000)
	dockerd.events <- struct{}{}
	if second := <-heard; !slices.Equal(second, []int{9000}) {
		t.Errorf("then %v are published", second)
	}
	conn, err := r.client.DialDocker(t.Context(), sandbox.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answered := make(chan struct{})
	following.Go(func() {
		defer close(answered)
		if response, _ := post(t, conn, "/v1.43/containers/x/start", ""); response.StatusCode != http.StatusNoContent {
			t.Error(response.Status)
		}
	})
	if third := <-heard; !slices.Equal(third, []int{8080}) {
		t.Errorf("after the start %v are published", third)
	}
	select {
	case <-answered:
		t.Error("the start was answered before the port was listened for")
	case <-time.After(100 * time.Millisecond):
	}
	close(acted)
	<-answered
}

func TestPortsAreReached(t *testing.T) {
	r := newRig(t)
	sandbox := r.create(innerdock.SandboxSpec{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	var serving sync.WaitGroup
	serving.Go(func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		got, _ := io.ReadAll(conn) // until the client's direction ends
		fmt.Fprintf(conn, "%d bytes", len(got))
	})
	conn, err := r.client.DialPort(t.Context(), sandbox.ID, port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "12345")
	conn.(tunnel.Stream).CloseWrite()
	if got, err := io.ReadAll(conn); string(got) != "5 bytes" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	serving.Wait()
	listener.Close()
	_, err = r.client.DialPort(t.Context(), sandbox.ID, port)
	wantCode(t, err, innerdock.CodeUnavailable)
	if !strings.Contains(err.Error(), "nothing listens") {
		t.Error(err)
	}
	for _, bad := range []int{0, -1, 65536} {
		_, err = r.client.DialPort(t.Context(), sandbox.ID, bad)
		wantCode(t, err, innerdock.CodeInvalid)
	}
}

// A tunnel is for who may have the sandbox, as everything else is.
func TestTunnelsNeedAKeyOfTheTenant(t *testing.T) {
	r := newRig(t)
	sandbox, _ := r.withDocker()
	_, other := r.key("other")
	stranger := r.connect("http://"+r.tcp, "idk_no")
	for name, dial := range map[string]func(c *innerdock.Client) error{
		"docker": func(c *innerdock.Client) error { _, err := c.DialDocker(t.Context(), sandbox.ID); return err },
		"port":   func(c *innerdock.Client) error { _, err := c.DialPort(t.Context(), sandbox.ID, 80); return err },
		"ports": func(c *innerdock.Client) error {
			return c.FollowPorts(t.Context(), sandbox.ID, func(innerdock.PublishedPorts) { t.Error("ports were told") })
		},
	} {
		if err := dial(stranger); innerdock.CodeOf(err) != innerdock.CodeUnauthorized {
			t.Errorf("%s without a key: %v", name, err)
		}
		if err := dial(other); innerdock.CodeOf(err) != innerdock.CodeNotFound {
			t.Errorf("%s of another tenant: %v", name, err)
		}
	}
	// Without asking for the upgrade there is none.
	key, _ := r.key(innerdock.DefaultTenant)
	response, body := r.request(http.MethodGet, "/v1/sandboxes/"+sandbox.ID+"/docker/connect", key, nil)
	wantError(t, response, body, innerdock.CodeInvalid, tunnel.Protocol)
}

// The sockets are as open as the server's own, live as long as their sandboxes,
// and tell a Docker client why there is no Docker.
func TestSocketsOfSandboxes(t *testing.T) {
	r := newRig(t)
	r.backend.Docker = func(spec innerdock.SandboxSpec) innerdock.DockerStatus {
		if spec.Name == "broken" {
			return innerdock.DockerStatus{State: innerdock.DockerFailed, Code: innerdock.CodeDockerNotInstalled, Reason: "dockerd not found"}
		}
		return innerdock.DockerStatus{State: innerdock.DockerReady}
	}
	sandbox, _ := r.withDocker()
	broken := r.create(innerdock.SandboxSpec{Name: "broken", Docker: innerdock.DockerSpec{Enabled: true}})
	plain := r.create(innerdock.SandboxSpec{})
	own, err := os.Stat(r.socket)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(r.dockerSocket(sandbox)); err != nil || info.Mode() != own.Mode() {
		t.Fatalf("%v, %v; the server's is %v", info, err, own.Mode())
	}
	if _, err := os.Stat(r.dockerSocket(plain)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a sandbox without Docker has a socket: %v", err)
	}
	conn, err := net.Dial("unix", r.dockerSocket(broken))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	response, _ := post(t, conn, "/v1.43/containers/create", "{}")
	body, _ := io.ReadAll(response.Body)
	if response.StatusCode != innerdock.CodeDockerNotInstalled.Status() || !strings.Contains(string(body), `{"message":"innerdock: dockerd not found"}`) {
		t.Errorf("without a Docker the client is told %s %s", response.Status, body)
	}

	// A server that was killed leaves sockets; the next one replaces and removes them.
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(r.socket), "docker", "*")); len(left) > 0 {
		t.Errorf("a server that stopped left %v", left)
	}
	dead := r.dockerSocket(innerdock.Sandbox{ID: "dead"})
	if err := os.MkdirAll(filepath.Dir(dead), 0o755); err != nil {
		t.Fatal(err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	listener.Close()
	r.serve(listenersOf(r))
	if _, err := os.Stat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a dead server's socket is still there: %v", err)
	}
	if conn, err := net.Dial("unix", r.dockerSocket(sandbox)); err != nil {
		t.Error("a sandbox that lives on has no socket:", err)
	} else {
		conn.Close()
	}
	if _, err := r.client.Terminate(t.Context(), sandbox.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the socket of an ended sandbox is removed", func() bool {
		_, err := os.Stat(r.dockerSocket(sandbox))
		return errors.Is(err, os.ErrNotExist)
	})
}

// A server that stops cuts tunnels that are quiet soon, not after its grace.
func TestQuietTunnelsDoNotHoldUpAStop(t *testing.T) {
	r := newRig(t)
	sandbox, dockerd := r.withDocker()
	conn, err := r.client.DialDocker(t.Context(), sandbox.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	post(t, conn, "/v1.43/containers/x/attach", "", upgrade)
	began := time.Now()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("stopping took %v", took)
	}
	if _, err := io.ReadAll(conn); err == nil {
		t.Error("the client was not told that it was cut off")
	}
	eventually(t, "Docker is told", func() bool { return dockerd.live() == 0 })
}

// An agent is hostile: what it answers instead of a tunnel is capped and checked.
func TestAHostileAgentMakesNoTunnel(t *testing.T) {
	for name, answer := range map[string]string{
		"an endless head":  "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: "+strings.Repeat("x", 100)+"\r\n", 1000),
		"another protocol": "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
		"no protocol":      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
		"a lie of a key":   "HTTP/1.1 401 Unauthorized\r\nContent-Length: 38\r\n\r\n" + `{"code":"unauthorized","message":"no"}`,
		"nothing":          "",
	} {
		t.Run(name, func(t *testing.T) {
			r := newHostileRig(t, answer)
			_, err := r.client.DialPort(t.Context(), "x", 80)
			wantCode(t, err, innerdock.CodeUnavailable)
		})
	}
}
