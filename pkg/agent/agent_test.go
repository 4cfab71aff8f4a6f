package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/wire"
	"github.com/innerdock/innerdock/pkg/worker/home"
)

// asInit makes the test binary be the agent, as PID 1 of a PID namespace.
const asInit = "INNERDOCK_TEST_INIT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asInit); dir != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := New(config(dir, os.Getpid() == 1)).Run(ctx); err != nil {
			panic(err)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func config(dir string, init bool) Config {
	return Config{Socket: filepath.Join(dir, "agent.sock"), Root: dir, Init: init, Version: "test", Log: slog.New(slog.DiscardHandler)}
}

// rig is an agent and the server that it dials.
type rig struct {
	t      *testing.T
	dir    string
	home   *home.Home
	client *http.Client
}

func listen(t *testing.T, dir string) *rig {
	t.Helper()
	h, err := home.Listen(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t, dir, h, h.Client()}
	t.Cleanup(func() { r.client.CloseIdleConnections(); h.Close() })
	return r
}

// start runs an agent in this process.
func start(t *testing.T) *rig {
	t.Helper()
	r := listen(t, t.TempDir())
	os.Mkdir(filepath.Join(r.dir, "workspace"), 0o755)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context())) // until the cleanup
	var running sync.WaitGroup
	running.Go(func() {
		if err := New(config(r.dir, false)).Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	r.wait()
	return r
}

func (r *rig) wait() wire.Hello {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	hello, err := r.home.Agent(ctx)
	if err != nil {
		r.t.Fatal("no agent came: ", err)
	}
	return hello
}

func (r *rig) do(method, path string, body any) (int, []byte) {
	r.t.Helper()
	encoded, err := json.Marshal(body)
	if err != nil {
		r.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, "http://agent"+path, bytes.NewReader(encoded))
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, answer
}

func (r *rig) sh(script string) innerdock.Process {
	r.t.Helper()
	status, body := r.do("POST", "/processes?wait=true", innerdock.ProcessSpec{Args: []string{"sh", "-c", script}, Cwd: "/"})
	var p innerdock.Process
	if err := json.Unmarshal(body, &p); err != nil || status != http.StatusCreated {
		r.t.Fatalf("%d %s", status, body)
	}
	return p
}

func (r *rig) stdout(p innerdock.Process) string {
	_, body := r.do("GET", fmt.Sprintf("/processes/%d/stdout", p.PID), nil)
	return string(body)
}

func TestHelloAndHealth(t *testing.T) {
	r := start(t)
	if hello := r.wait(); hello.Protocol != wire.Version || hello.Agent != "test" {
		t.Errorf("hello: %+v", hello)
	}
	if status, body := r.do("GET", wire.PathHealth, nil); status != 200 || !strings.Contains(string(body), `"agent":"test"`) {
		t.Errorf("health: %d %s", status, body)
	}
	status, body := r.do("GET", "/no/such/route", nil)
	if status != http.StatusNotFound || !strings.Contains(string(body), `"code":"not_found"`) {
		t.Errorf("unknown route: %d %s", status, body)
	}
}

func TestDialsAgain(t *testing.T) {
	r := start(t)
	p := r.sh("echo kept")
	r.home.Hangup()
	r.wait()
	r.client.CloseIdleConnections()
	if got := r.stdout(p); got != "kept\n" {
		t.Errorf("after it: %q", got)
	}
	r.home.Close() // the server is away for a while, and another one comes
	<-time.After(300 * time.Millisecond)
	next := listen(t, r.dir)
	next.wait()
	if got := next.stdout(p); got != "kept\n" {
		t.Errorf("at the new server: %q", got)
	}
}

// TestRudeServers: whatever the other side does, the agent dials again.
func TestRudeServers(t *testing.T) {
	dir := t.TempDir()
	for _, answer := range []string{"", "nonsense\n", `{"protocol":1,"error":"go away"}` + "\n", strings.Repeat("x", 2*wire.MaxLine), `{"protocol":1}` + "\nnot yamux at all, not at all"} {
		l, err := net.Listen("unix", filepath.Join(dir, "agent.sock"))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { New(config(dir, false)).Run(ctx) })
		for range 2 {
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			conn.SetDeadline(time.Now().Add(time.Minute))
			if _, err := wire.ReadLine(conn); err != nil {
				t.Errorf("%.20q: %v", answer, err)
			}
			io.WriteString(conn, answer)
			conn.Close()
		}
		l.Close()
		cancel()
		running.Wait()
	}
}

func TestConfigure(t *testing.T) {
	r := start(t)
	etc := filepath.Join(r.dir, "etc")
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(etc, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	os.MkdirAll(etc, 0o755)
	os.Symlink("../run/elsewhere/resolv.conf", filepath.Join(etc, "resolv.conf"))
	c := wire.Configuration{Hostname: "box", Address: "10.0.0.2", Nameserver: "10.0.0.1", Env: map[string]string{"TOKEN": "x y", "HOME": "/home/me"}}
	if status, body := r.do("POST", wire.PathConfigure, c); status != http.StatusNoContent {
		t.Fatalf("%d %s", status, body)
	}
	if read("hostname") != "box\n" || !strings.Contains(read("hosts"), "10.0.0.2\tbox\n") || read("resolv.conf") != "nameserver 10.0.0.1\n" {
		t.Errorf("hostname %q, hosts %q, resolv.conf %q", read("hostname"), read("hosts"), read("resolv.conf"))
	}
	got := r.stdout(r.sh(`echo "$TOKEN|$HOME|$HOSTNAME|$PATH"`))
	if want := "x y|/home/me|box|" + defaultPath + "\n"; got != want {
		t.Errorf("environment %q, want %q", got, want)
	}

	mine := read("hosts") + "1.2.3.4 mine\n"
	os.WriteFile(filepath.Join(etc, "hosts"), []byte(mine), 0o644)
	r.do("POST", wire.PathConfigure, c)
	if read("hosts") != mine {
		t.Errorf("the same again changed hosts: %q", read("hosts"))
	}
	c.Address, c.Hostname, c.Env = "10.0.0.6", "box2", nil
	r.do("POST", wire.PathConfigure, c)
	if want := strings.Replace(mine, "10.0.0.2\tbox", "10.0.0.6\tbox2", 1); read("hosts") != want || read("hostname") != "box2\n" {
		t.Errorf("after a move: hosts %q, hostname %q", read("hosts"), read("hostname"))
	}
	if got := r.stdout(r.sh(`echo "$TOKEN|$HOME"`)); got != "|/root\n" {
		t.Errorf("environment after a move: %q", got)
	}
	write("passwd", "app:x:1500:1501::/home/app:/bin/sh\n")
	c.User = "app"
	r.do("POST", wire.PathConfigure, c)
	if out := r.stdout(r.sh("id -u")); out != "1500\n" {
		t.Errorf("the image's user is %q", out)
	}
	if info, err := os.Stat(filepath.Join(r.dir, "workspace")); err != nil || info.Sys().(*syscall.Stat_t).Uid != 1500 {
		t.Errorf("/workspace is not the user's: %v", err)
	}
	c.Dir, c.User = "/srv/app", "absent" // a directory that is not there, a user that is not
	r.do("POST", wire.PathConfigure, c)
	if info, err := os.Stat(filepath.Join(r.dir, "srv/app")); err != nil || !info.IsDir() {
		t.Errorf("the working directory: %v", err)
	}
	if _, body := r.do("POST", "/processes", innerdock.ProcessSpec{Args: []string{"true"}, User: "root"}); !strings.Contains(string(body), filepath.Join(r.dir, "srv/app")) {
		t.Errorf("it begins elsewhere: %s", body)
	}
	if status, body := r.do("POST", "/processes", innerdock.ProcessSpec{Args: []string{"true"}}); status != http.StatusBadRequest || !strings.Contains(string(body), "absent") {
		t.Errorf("as a user that is not there: %d %s", status, body)
	}
	for _, bad := range []wire.Configuration{{}, {Hostname: "a", Dir: "srv"}, {Hostname: "a", Dir: "/\x00"}, {Hostname: "a b"}, {Hostname: "a\nb"}, {Hostname: strings.Repeat("x", 64)}, {Hostname: "a", Address: "x"}, {Hostname: "a", Nameserver: "1.1.1.1\nsearch x"}} {
		if status, body := r.do("POST", wire.PathConfigure, bad); status != http.StatusBadRequest {
			t.Errorf("%+v: %d %s", bad, status, body)
		}
	}
}

// initRig runs an agent as PID 1 of a PID namespace of its own.
func initRig(t *testing.T) (*rig, *exec.Cmd) {
	t.Helper()
	r := listen(t, t.TempDir())
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), asInit+"="+r.dir)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal("these tests run as root: ", err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	r.wait()
	return r, cmd
}

// children returns the states of the children of a process of the host.
func children(t *testing.T, pid int) (states []string) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range stats {
		body, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(body), ") ")
		if f := strings.Fields(rest); len(f) > 1 && f[1] == strconv.Itoa(pid) {
			states = append(states, f[0])
		}
	}
	return states
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("timed out: ", what)
		}
	}
}

func TestInitReapsOrphansAndKeepsExitCodes(t *testing.T) {
	r, cmd := initRig(t)
	for _, dir := range []string{"workspace", "root", "tmp", "var/tmp", "run", "var/run"} {
		if _, err := os.Stat(filepath.Join(r.dir, dir)); err != nil {
			t.Error(err)
		}
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 10 { // every process leaves orphans that end at about the same time
				want := (i*10 + j) % 100
				p := r.sh(fmt.Sprintf("(sleep 0.02 &) ; (true &) ; (true &) ; exit %d", want))
				if *p.ExitCode != want {
					t.Errorf("exit code %d, want %d", *p.ExitCode, want)
				}
			}
		})
	}
	wg.Wait()
	await(t, "all orphans to be reaped", func() bool { return len(children(t, cmd.Process.Pid)) == 0 })
}

func TestInitEndsEverythingOnSIGTERM(t *testing.T) {
	r, cmd := initRig(t)
	log := filepath.Join(r.dir, "log")
	r.do("POST", "/processes", innerdock.ProcessSpec{Cwd: "/", Args: []string{"sh", "-c", `trap 'echo term >>` + log + `; exit' TERM; echo up >>` + log + `; while :; do sleep 0.01; done`}})
	r.sh(`setsid sh -c 'trap "echo orphan >>` + log + `; exit" TERM; echo up >>` + log + `; while :; do sleep 0.01; done' >/dev/null 2>&1 &`)
	lines := func() string { b, _ := os.ReadFile(log); return string(b) }
	await(t, "both to be up", func() bool { return strings.Count(lines(), "up") == 2 })
	began := time.Now()
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Error("the agent ended with ", err)
	}
	if took := time.Since(began); took > defaultGrace-time.Second {
		t.Errorf("it took %v", took)
	}
	if got := lines(); !strings.Contains(got, "term") || !strings.Contains(got, "orphan") {
		t.Errorf("not told to end: %q", got)
	}
}

func BenchmarkExecRoundTrip(b *testing.B) {
	dir := b.TempDir()
	h, err := home.Listen(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() { New(config(dir, false)).Run(ctx) })
	defer running.Wait()
	defer cancel()
	if _, err := h.Agent(ctx); err != nil {
		b.Fatal(err)
	}
	client := h.Client()
	defer client.CloseIdleConnections()
	for b.Loop() {
		resp, err := client.Post("http://agent/processes?wait=true", "application/json", strings.NewReader(`{"args":["true"],"cwd":"/"}`))
		if err != nil {
			b.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			b.Fatal(resp.Status)
		}
	}
}
