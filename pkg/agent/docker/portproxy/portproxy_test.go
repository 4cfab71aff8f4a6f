package portproxy

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/innerdock/innerdock/test/freeport"
)

// TestMain is the program too, for tests that start it as dockerd does.
func TestMain(m *testing.M) {
	if os.Args[0] == Path {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		if Main(ctx, os.Args[1:], os.Environ()) != nil {
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// run starts the program and returns what it tells dockerd.
func run(t *testing.T, files []*os.File, args ...string) (*exec.Cmd, string) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	said, status, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd := &exec.Cmd{Path: program, Args: append([]string{Path}, args...), Env: os.Environ(), ExtraFiles: append([]*os.File{status}, files...)}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	status.Close()
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	told, err := io.ReadAll(said)
	if err != nil {
		t.Fatal(err)
	}
	return cmd, string(told)
}

func arguments(outside, inside string) []string {
	host, port, _ := net.SplitHostPort(outside)
	to, toPort, _ := net.SplitHostPort(inside)
	return []string{"-proto", "tcp", "-host-ip", host, "-host-port", port, "-container-ip", to, "-container-port", toPort}
}

// echo answers each connection to address with what it says, once that has ended.
func echo(t *testing.T, address string) {
	t.Helper()
	listener, err := net.Listen("tcp4", address)
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
}

// ask sends a question, ends its direction, and returns the answer.
func ask(t *testing.T, conn net.Conn) string {
	t.Helper()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	io.WriteString(conn, "hello")
	conn.(*net.TCPConn).CloseWrite()
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Error(err)
	}
	return string(answer)
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestAConnectionWaitsForItsContainerToListen(t *testing.T) {
	outside, inside := freeport.Address(t), freeport.Address(t)
	cmd, told := run(t, nil, arguments(outside, inside)...)
	if told != "0\n" {
		t.Fatalf("dockerd is told %q", told)
	}
	early := dial(t, outside)
	early.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := early.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("before its container listens a connection says %v", err)
	}
	echo(t, inside)
	for _, conn := range []net.Conn{early, dial(t, outside)} {
		if got := ask(t, conn); got != "hello" {
			t.Errorf("the answer is %q", got)
		}
	}
	cmd.Process.Signal(os.Interrupt) // so does dockerd
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// Since version 28 dockerd binds the port itself.
func TestASocketThatIsGiven(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	inside := freeport.Address(t)
	echo(t, inside)
	_, told := run(t, []*os.File{file}, append(arguments(listener.Addr().String(), inside), "-use-listen-fd")...)
	if told != "0\n" {
		t.Fatalf("dockerd is told %q", told)
	}
	if got := ask(t, dial(t, listener.Addr().String())); got != "hello" {
		t.Errorf("the answer is %q", got)
	}
}

func TestWhatDoesNotStartTellsWhy(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if _, told := run(t, nil, arguments(taken.Addr().String(), freeport.Address(t))...); !strings.HasPrefix(told, "1\n") || !strings.Contains(told, "address already in use") {
		t.Errorf("dockerd is told %q", told)
	}
	t.Setenv("PATH", t.TempDir())
	if _, told := run(t, nil, "-proto", "udp"); !strings.HasPrefix(told, "1\n") || !strings.Contains(told, "docker-proxy") {
		t.Errorf("without docker-proxy dockerd is told %q", told)
	}
}

// What is not TCP is the original's.
func TestTheOriginalServesUDP(t *testing.T) {
	dir := t.TempDir()
	script := "#!/bin/sh\nprintf '0\\n%s' \"$*\" >&3\n"
	if err := os.WriteFile(dir+"/docker-proxy", []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	if _, told := run(t, nil, "-proto", "udp", "-host-port", "53"); told != "0\n-proto udp -host-port 53" {
		t.Errorf("dockerd is told %q", told)
	}
}

// When its time is over, a container that does not listen cuts connections.
func TestPatienceEnds(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{backend: freeport.Address(t), until: time.Now()}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { p.serve(ctx, listener) })
	defer serving.Wait()
	defer cancel()
	conn := dial(t, listener.Addr().String())
	conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("reading says %v", err)
	}
}
