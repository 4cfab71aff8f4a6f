package forward

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/test/freeport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// loopbackOfPython is what innerdock._tunnel.loopback("7z5vzd2x4ssc") returns.
const loopbackOfPython = "127.173.234.37"

const limit = 30 * time.Second

var here = netip.MustParseAddr("127.0.0.1")

func listenUnix(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "docker.sock"))
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// echo answers every connection with what it says, once that has ended, and
// returns where.
func echo(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				said, _ := io.ReadAll(conn)
				conn.Write(said)
			})
		}
	})
	t.Cleanup(func() { listener.Close(); serving.Wait() })
	return listener.Addr().String()
}

func dial(t *testing.T, network, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(limit))
	return conn
}

// ask says something, ends its direction, and returns the answer.
func ask(t *testing.T, conn net.Conn) string {
	t.Helper()
	io.WriteString(conn, "hello")
	conn.(interface{ CloseWrite() error }).CloseWrite()
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Error(err)
	}
	return string(answer)
}

// eventually waits for what no event tells of.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

// sandbox is a Client whose sandbox is what the test makes of it.
type sandbox struct {
	behind string          // where Docker and every port lead
	refuse error           // of Docker
	ports  chan []int      // that are published
	acted  chan struct{}   // each is listened for
	ended  chan struct{}   // closed when it has ended
	broken func(int) error // of the nth time that ports are followed

	mu       sync.Mutex
	followed int
}

func newSandbox(t *testing.T) *sandbox {
	return &sandbox{behind: echo(t), ports: make(chan []int), acted: make(chan struct{}), ended: make(chan struct{})}
}

func (s *sandbox) DialDocker(ctx context.Context, _ string) (net.Conn, error) {
	if s.refuse != nil {
		return nil, s.refuse
	}
	return new(net.Dialer).DialContext(ctx, "tcp4", s.behind)
}

func (s *sandbox) DialPort(ctx context.Context, _ string, _ int) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp4", s.behind)
}

func (s *sandbox) FollowPorts(ctx context.Context, _ string, act func(innerdock.PublishedPorts)) error {
	s.mu.Lock()
	s.followed++
	n := s.followed
	s.mu.Unlock()
	if s.broken != nil {
		if err := s.broken(n); err != nil {
			return err
		}
	}
	for {
		select {
		case ports := <-s.ports:
			act(innerdock.PublishedPorts{Ports: ports})
			s.acted <- struct{}{}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *sandbox) Wait(ctx context.Context, id string) (innerdock.Sandbox, error) {
	select {
	case <-s.ended:
		return innerdock.Sandbox{ID: id, State: innerdock.StateTerminated}, nil
	case <-ctx.Done():
		return innerdock.Sandbox{}, ctx.Err()
	}
}

// forwarded forwards s until the test ends, and returns its socket and outcome.
func forwarded(t *testing.T, s *sandbox) (string, <-chan error) {
	t.Helper()
	listener := listenUnix(t)
	ctx, cancel := context.WithCancel(t.Context())
	outcome := make(chan error, 1)
	var forwarding sync.WaitGroup
	forwarding.Go(func() {
		outcome <- Sandbox(ctx, s, "abc", listener, here, func(err error) { t.Errorf("warned: %v", err) })
	})
	t.Cleanup(func() { cancel(); forwarding.Wait() })
	return listener.Addr().String(), outcome
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

func TestDockerAndPortsAreForwardedUntilTheSandboxEnds(t *testing.T) {
	s := newSandbox(t)
	socket, outcome := forwarded(t, s)
	early := dial(t, "unix", socket) // waits for the ports to be known
	early.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	io.WriteString(early, "early ")
	if n, err := early.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Error("a client was served before the ports were known")
	}
	early.SetDeadline(time.Now().Add(limit))
	port := freeport.Get(t)
	s.ports <- []int{port}
	<-s.acted
	if got := ask(t, early); got != "early hello" {
		t.Errorf("Docker says %q", got)
	}
	if got := ask(t, dial(t, "tcp4", address(port))); got != "hello" {
		t.Errorf("the port says %q", got)
	}
	quiet := dial(t, "unix", socket)
	io.WriteString(quiet, "x") // and goes on
	close(s.ended)
	if err := <-outcome; innerdock.CodeOf(err) != innerdock.CodeSandboxTerminated {
		t.Errorf("forwarding ended with %v", err)
	}
	if _, err := io.ReadAll(quiet); err != nil && errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a connection of a sandbox that has ended: %v", err)
	}
	if _, err := net.Dial("tcp4", address(port)); err == nil {
		t.Error("its port is still listened for")
	}
}

// A server that is away for a moment is asked again; what is final is not.
func TestNewsThatBreakOff(t *testing.T) {
	s := newSandbox(t)
	s.broken = func(n int) error {
		switch n {
		case 1:
			return innerdock.Errorf(innerdock.CodeUnavailable, "restarting")
		case 2:
			return nil
		}
		return innerdock.Errorf(innerdock.CodeForbidden, "the key was revoked")
	}
	socket, outcome := forwarded(t, s)
	port := freeport.Get(t)
	s.ports <- []int{port}
	<-s.acted
	if got := ask(t, dial(t, "unix", socket)); got != "hello" {
		t.Errorf("Docker says %q", got)
	}
	select {
	case err := <-outcome:
		t.Fatalf("it ended: %v", err)
	default:
	}
	final := newSandbox(t)
	final.broken = func(int) error { return innerdock.Errorf(innerdock.CodeForbidden, "the key was revoked") }
	_, outcome = forwarded(t, final)
	if err := <-outcome; innerdock.CodeOf(err) != innerdock.CodeForbidden {
		t.Errorf("without a key it ended with %v", err)
	}
}

// Who cannot be connected is told why as Docker's clients understand it.
func TestARefusalIsTheDockerAPIs(t *testing.T) {
	s := newSandbox(t)
	s.refuse = innerdock.Errorf(innerdock.CodeSandboxTerminated, "sandbox abc is terminated")
	socket, _ := forwarded(t, s)
	s.ports <- nil
	<-s.acted
	conn := dial(t, "unix", socket)
	io.WriteString(conn, "GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil || string(body) != `{"message":"innerdock: sandbox abc is terminated"}` || response.StatusCode != innerdock.CodeSandboxTerminated.Status() {
		t.Errorf("%s: %s, %v", response.Status, body, err)
	}
}

func TestConnectionsAreCapped(t *testing.T) {
	socket, _ := forwarded(t, func() *sandbox {
		s := newSandbox(t)
		go func() { s.ports <- nil; <-s.acted }()
		return s
	}())
	said := make(chan string, maxConns+1) // by those that hear anything: the others' direction is open
	for range maxConns + 1 {
		conn := dial(t, "unix", socket)
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: docker\r\n\r\n")
		go func() {
			answer := make([]byte, 4<<10)
			n, _ := conn.Read(answer)
			said <- string(answer[:n])
		}()
	}
	if answer := <-said; !strings.Contains(answer, "close some") {
		t.Errorf("one too many is told %q", answer)
	}
}

func TestPortsComeAndGo(t *testing.T) {
	behind := echo(t)
	warnings := make(chan error, 10)
	p := NewPublisher(t.Context(), here, func(ctx context.Context, port int) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp4", behind)
	}, func(err error) { warnings <- err })
	defer p.Close()
	blocker, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer blocker.Close()
	taken, one := blocker.Addr().(*net.TCPAddr).Port, freeport.Get(t)
	for range 2 { // a port that is taken is told of once
		p.Set(innerdock.PublishedPorts{Ports: []int{one, taken, 0, 65536, one}})
	}
	if err := <-warnings; innerdock.CodeOf(err) != innerdock.CodeConflict || !strings.Contains(err.Error(), fmt.Sprint(taken)) {
		t.Errorf("of a port that is taken it says %v", err)
	}
	if len(warnings) > 0 {
		t.Errorf("and then %v", <-warnings)
	}
	open := dial(t, "tcp4", address(one))
	io.WriteString(open, "before ")
	blocker.Close()
	p.Set(innerdock.PublishedPorts{Ports: []int{taken}})
	if got := ask(t, dial(t, "tcp4", address(taken))); got != "hello" {
		t.Errorf("a port that is free again says %q", got)
	}
	eventually(t, "the port that is gone refuses", func() bool {
		conn, err := net.Dial("tcp4", address(one))
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	if got := ask(t, open); got != "before hello" {
		t.Errorf("a connection to a port that is no longer published says %q", got)
	}
}

func TestManyPortsAreCapped(t *testing.T) {
	warned := 0
	p := NewPublisher(t.Context(), here, nil, func(err error) {
		if innerdock.CodeOf(err) == innerdock.CodeExhausted {
			warned++
		}
	})
	defer p.Close()
	var ports []int
	for port := 20000; len(ports) < maxPorts+10; port++ {
		ports = append(ports, port)
	}
	p.Set(innerdock.PublishedPorts{Ports: ports})
	if warned != 1 || len(p.open) > maxPorts {
		t.Errorf("%d ports are listened for, %d warnings", len(p.open), warned)
	}
}

// A port of UDP, for which there is no tunnel, is told once as long as it is
// published.
func TestPortsOfUDPAreTold(t *testing.T) {
	var told []string
	p := NewPublisher(t.Context(), here, nil, func(err error) { told = append(told, err.Error()) })
	defer p.Close()
	for _, ports := range [][]int{{53}, {53, 161}, {161}, {53, 161}} {
		p.Set(innerdock.PublishedPorts{UDP: ports})
	}
	if len(told) != 3 || !strings.Contains(told[0], "53/udp") || !strings.Contains(told[1], "161/udp") || !strings.Contains(told[2], "53/udp") {
		t.Errorf("told %q", told)
	}
}

// The address follows from the ID alone, here as in the Python SDK.
func TestLoopback(t *testing.T) {
	if got := Loopback("7z5vzd2x4ssc").String(); got != loopbackOfPython {
		t.Errorf("%s, in Python %s", got, loopbackOfPython)
	}
}
