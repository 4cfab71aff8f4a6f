package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/child"
	"github.com/innerdock/innerdock/pkg/agent/wire"
)

// asDaemon makes the test binary be a daemon that behaves as the file of that
// name says. The real dockerd needs a sandbox; here it is about the supervisor.
const asDaemon = "INNERDOCK_TEST_DAEMON"

func TestMain(m *testing.M) {
	if root := os.Getenv(asDaemon); root != "" {
		os.Exit(daemon(root))
	}
	goleak.VerifyTestMain(m)
}

func daemon(root string) int {
	name := os.Args[0]
	fmt.Println("flags:", strings.Join(os.Args[1:], " "))
	behaviour, _ := os.ReadFile(filepath.Join(root, name+".does"))
	socket := filepath.Join(root, "var/run/docker.sock")
	if name == "containerd" {
		socket = root + containerdSocket
		os.MkdirAll(filepath.Dir(socket), 0o755)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	switch string(behaviour) {
	case "crash":
		fmt.Println("last words")
		return 3
	case "no socket":
		<-stop
		return 0
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		select {}
	}
	os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	asked := 0
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		switch {
		case string(behaviour) == "crash when asked":
			os.Exit(4)
		case string(behaviour) == "late" && asked < 4:
			http.Error(w, "starting", http.StatusServiceUnavailable)
		case string(behaviour) == "never":
			<-r.Context().Done()
		default:
			fmt.Fprintf(w, `{"ServerVersion":"99.%d"}`, os.Getpid())
		}
	}))
	<-stop
	fmt.Println("stopped", name)
	return 0
}

// rig is a supervisor whose daemons are this binary.
type rig struct {
	t    *testing.T
	root string
	s    *Supervisor
}

func newRig(t *testing.T, daemons ...string) *rig {
	t.Helper()
	r := &rig{t: t, root: t.TempDir()}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	os.Mkdir(filepath.Join(r.root, "bin"), 0o755)
	for _, name := range daemons {
		os.Symlink(self, filepath.Join(r.root, "bin", name))
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context())) // until the cleanup
	reaper := &child.Reaper{}
	var reaping sync.WaitGroup
	reaping.Go(func() { reaper.Run(ctx) })
	r.s = New(Config{Reaper: reaper, Root: r.root, Log: slog.New(slog.DiscardHandler), Environ: func(map[string]string) []string {
		return []string{"PATH=" + filepath.Join(r.root, "bin"), asDaemon + "=" + r.root, "GORACE=atexit_sleep_ms=0"}
	}})
	t.Cleanup(func() {
		r.s.Close(5 * time.Second)
		cancel()
		reaping.Wait()
	})
	return r
}

func (r *rig) does(name, behaviour string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.root, name+".does"), []byte(behaviour), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) start(limit time.Duration, req wire.DockerStart) (steps []string, last wire.DockerEvent, err error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), limit)
	defer cancel()
	err = r.s.Start(ctx, req, func(e wire.DockerEvent) {
		last = e
		if e.Error == "" && !slices.Contains(steps, string(e.Step)) {
			steps = append(steps, string(e.Step))
		}
	})
	return steps, last, err
}

func (r *rig) log() string { return r.s.log.Tail(logSize) }

var full = wire.DockerStart{Profile: innerdock.ProfileFull, Address: "10.0.0.2", MTU: 1500}

func TestStartTellsEachStep(t *testing.T) {
	r := newRig(t, "dockerd", "containerd")
	r.does("dockerd", "late")
	steps, last, err := r.start(10*time.Second, full)
	if err != nil {
		t.Fatal(err, r.log())
	}
	if got := strings.Join(steps, " "); got != "installed run-dir kernel daemon socket info ready" {
		t.Errorf("steps: %s", got)
	}
	if !strings.HasPrefix(last.Version, "99.") || r.s.Report().State != innerdock.DockerReady || r.s.Report().Version != last.Version {
		t.Errorf("last %+v, report %+v", last, r.s.Report())
	}
	steps, again, err := r.start(10*time.Second, full)
	if err != nil || len(steps) != 1 || again.Step != wire.StepReady || again.Version != last.Version {
		t.Errorf("again: %v %+v %v", steps, again, err)
	}
	if err := r.s.Stop(t.Context()); err != nil || r.s.Report().State != innerdock.DockerDisabled {
		t.Errorf("stop: %v, %+v", err, r.s.Report())
	}
	if got := r.log(); !strings.Contains(got, "stopped dockerd") || strings.Index(got, "stopped containerd") < strings.Index(got, "stopped dockerd") {
		t.Errorf("log: %s", got)
	}
	if _, next, err := r.start(10*time.Second, full); err != nil || next.Version == last.Version {
		t.Errorf("after the stop: %+v %v", next, err)
	}
}

func TestFailuresSayWhy(t *testing.T) {
	for _, c := range []struct {
		name, dockerd, containerd string
		limit                     time.Duration
		step                      wire.DockerStep
		code                      innerdock.Code
		says                      string
		exit                      int
	}{
		{name: "crash", dockerd: "crash", limit: 10 * time.Second, step: wire.StepSocket, code: innerdock.CodeDockerFailed, says: "dockerd exited (exit code 3)", exit: 3},
		{name: "crash when asked", dockerd: "crash when asked", limit: 10 * time.Second, step: wire.StepInfo, code: innerdock.CodeDockerFailed, says: "exit code 4", exit: 4},
		{name: "containerd crash", containerd: "crash", limit: 10 * time.Second, step: wire.StepDaemon, code: innerdock.CodeDockerFailed, says: "containerd exited (exit code 3)", exit: 3},
		{name: "no socket", dockerd: "no socket", limit: 300 * time.Millisecond, step: wire.StepSocket, code: innerdock.CodeDockerTimeout, says: "has not made its socket"},
		{name: "no answer", dockerd: "never", limit: 2500 * time.Millisecond, step: wire.StepInfo, code: innerdock.CodeDockerTimeout, says: "asked 2 times"},
		{name: "no containerd socket", containerd: "no socket", limit: 300 * time.Millisecond, step: wire.StepDaemon, code: innerdock.CodeDockerTimeout, says: "containerd"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, "dockerd", "containerd")
			r.does("dockerd", c.dockerd)
			r.does("containerd", c.containerd)
			_, last, err := r.start(c.limit, full)
			if err == nil || last.Step != c.step || last.Code != c.code || !strings.Contains(last.Error, c.says) {
				t.Errorf("%v: %+v", err, last)
			}
			if c.exit != 0 && (last.ExitCode == nil || *last.ExitCode != c.exit) {
				t.Errorf("exit code: %+v", last.ExitCode)
			}
			if strings.HasPrefix(c.name, "crash when") || !strings.Contains(c.name, "crash") {
				return
			}
			if !strings.Contains(last.Log, "last words") {
				t.Errorf("log: %q", last.Log)
			}
			if got := r.s.Report(); got.State != innerdock.DockerFailed || got.Reason != last.Error || got.Code != c.code {
				t.Errorf("report: %+v", got)
			}
			r.does("dockerd", "")
			r.does("containerd", "")
			if _, last, err := r.start(10*time.Second, full); err != nil || last.Step != wire.StepReady {
				t.Errorf("the next start: %v %+v", err, last)
			}
		})
	}
}

func TestNotInstalled(t *testing.T) {
	r := newRig(t)
	_, last, err := r.start(time.Second, full)
	if err == nil || last.Code != innerdock.CodeDockerNotInstalled || last.Step != wire.StepInstalled ||
		last.Error != "dockerd not found - please install Docker in your image using Image().with_docker()" {
		t.Errorf("%v: %+v", err, last)
	}
}

func TestCancelledStartLeavesNothing(t *testing.T) {
	r := newRig(t, "dockerd", "containerd")
	r.does("dockerd", "never")
	ctx, cancel := context.WithCancel(t.Context())
	_ = r.s.Start(ctx, full, func(e wire.DockerEvent) {
		if e.Step == wire.StepInfo {
			cancel()
		}
	})
	if n := r.s.cfg.Reaper.Running(); n != 0 {
		t.Errorf("%d daemons are left", n)
	}
}

func TestRestartsWhatDies(t *testing.T) {
	r := newRig(t, "dockerd", "containerd")
	_, ready, err := r.start(10*time.Second, full)
	if err != nil {
		t.Fatal(err)
	}
	r.does("dockerd", "crash")
	pid, _ := strconv.Atoi(strings.TrimPrefix(ready.Version, "99."))
	syscall.Kill(pid, syscall.SIGKILL)
	report := r.s.Await(t.Context(), innerdock.DockerReady, 10*time.Second)
	if report.State != innerdock.DockerRestarting || report.Restarts != 1 || !strings.Contains(report.Reason, "SIGKILL") || *report.ExitCode != 137 {
		t.Errorf("report: %+v", report)
	}
	await(t, "a second try", func() bool { return r.s.Report().Restarts > 1 })
	r.does("dockerd", "")
	report = r.s.Await(t.Context(), innerdock.DockerRestarting, 10*time.Second)
	if report.State != innerdock.DockerReady || report.Version == ready.Version {
		t.Errorf("report: %+v", report)
	}
	syscall.Kill(r.s.containerd.PID(), syscall.SIGKILL)
	if report := r.s.Await(t.Context(), innerdock.DockerReady, 10*time.Second); !strings.HasPrefix(report.Reason, "containerd exited") {
		t.Errorf("report: %+v", report)
	}
	if after := r.s.Await(t.Context(), innerdock.DockerRestarting, 10*time.Second); after.Version != report.Version {
		t.Errorf("dockerd was restarted with containerd: %+v", after)
	}
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

func TestMinimalIsTheSeedsFlags(t *testing.T) {
	r := newRig(t, "dockerd")
	if _, _, err := r.start(10*time.Second, wire.DockerStart{Profile: innerdock.ProfileMinimal, Mirror: "http://10.0.0.1:5000"}); err != nil {
		t.Fatal(err)
	}
	want := "flags: --host=unix:///var/run/docker.sock --storage-driver=vfs --iptables=false --ip-forward=false --bridge=none\n"
	if !strings.Contains(r.log(), want) {
		t.Errorf("log %q, want %q", r.log(), want)
	}
	config, err := os.ReadFile(filepath.Join(r.root, "etc/docker/daemon.json"))
	if err != nil || !strings.Contains(string(config), `"http://10.0.0.1:5000"`) {
		t.Errorf("daemon.json: %s %v", config, err)
	}
}

func TestTheImagesConfigurationWins(t *testing.T) {
	const base = "--host=unix:///var/run/docker.sock --storage-driver=overlay2 --iptables=false --ip6tables=false"
	for _, c := range []struct {
		name, file, mirror string
		mtu                int
		flags, after, err  string
	}{
		{name: "none", flags: base},
		{name: "empty", file: " \n", flags: base, after: " \n"},
		{name: "mtu", mtu: 1400, flags: base + " --mtu=1400 --default-network-opt=bridge=com.docker.network.driver.mtu=1400"},
		{name: "mtu of the image", file: `{"mtu":1300}`, mtu: 1400, after: `{"mtu":1300}`,
			flags: base + " --default-network-opt=bridge=com.docker.network.driver.mtu=1400"},
		{name: "its own driver and mirrors", file: `{"storage-driver":"vfs","registry-mirrors":[]}`, mirror: "http://m",
			flags: "--host=unix:///var/run/docker.sock --iptables=false --ip6tables=false", after: `{"storage-driver":"vfs","registry-mirrors":[]}`},
		{name: "merged", file: `{"debug":true,"big":12345678901234567890}`, mirror: "http://m", flags: base,
			after: "{\n  \"big\": 12345678901234567890,\n  \"debug\": true,\n  \"insecure-registries\": [\n    \"m\"\n  ],\n  \"registry-mirrors\": [\n    \"http://m\"\n  ]\n}\n"},
		{name: "its own insecure registries", file: `{"insecure-registries":["own:5000"]}`, mirror: "http://m", flags: base,
			after: "{\n  \"insecure-registries\": [\n    \"own:5000\",\n    \"m\"\n  ],\n  \"registry-mirrors\": [\n    \"http://m\"\n  ]\n}\n"},
		{name: "hosts", file: `{"hosts":["unix:///var/run/docker.sock","tcp://127.0.0.1:2375"]}`, flags: strings.TrimPrefix(base, "--host=unix:///var/run/docker.sock "),
			after: `{"hosts":["unix:///var/run/docker.sock","tcp://127.0.0.1:2375"]}`},
		{name: "hosts elsewhere", file: `{"hosts":["tcp://127.0.0.1:2375"]}`, err: "hosts lacks"},
		{name: "not JSON", file: `{`, err: "not valid JSON"},
		{name: "not an object", file: `[]`, err: "not valid JSON"},
		{name: "null", file: `null`, mirror: "http://m", flags: base, after: "{\n  \"insecure-registries\": [\n    \"m\"\n  ],\n  \"registry-mirrors\": [\n    \"http://m\"\n  ]\n}\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &Supervisor{cfg: Config{Root: t.TempDir()}}
			path := s.path("/etc/docker/daemon.json")
			if c.file != "" {
				os.MkdirAll(filepath.Dir(path), 0o755)
				os.WriteFile(path, []byte(c.file), 0o644)
			}
			req := wire.DockerStart{Profile: innerdock.ProfileFull, Mirror: c.mirror, MTU: c.mtu}
			config, err := s.configure(req)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(arguments(req, config), " "); got != c.flags {
				t.Errorf("flags\n %s, want\n %s", got, c.flags)
			}
			if got, _ := os.ReadFile(path); string(got) != c.after {
				t.Errorf("daemon.json\n %s, want\n %s", got, c.after)
			}
		})
	}
}

func FuzzConfig(f *testing.F) {
	for _, s := range []string{"", "{}", "null", `{"hosts":1}`, `{"registry-mirrors":null}`, `{"a":{"b":[1,2]}}`} {
		f.Add(s)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, body string) {
		s := &Supervisor{cfg: Config{Root: dir}}
		path := s.path("/etc/docker/daemon.json")
		os.MkdirAll(filepath.Dir(path), 0o755)
		os.WriteFile(path, []byte(body), 0o644)
		if _, err := s.configure(wire.DockerStart{Profile: innerdock.ProfileFull, Mirror: "http://m"}); err != nil {
			return
		}
		after, _ := os.ReadFile(path)
		var config map[string]any
		if err := json.Unmarshal(after, &config); err != nil || !strings.Contains(string(after), "registry-mirrors") {
			t.Errorf("%q became %q: %v", body, after, err)
		}
	})
}

// TestStalePIDFiles: dockerd would not start if their PID were another's.
func TestStalePIDFiles(t *testing.T) {
	s := &Supervisor{cfg: Config{Root: t.TempDir()}}
	file := s.path("/var/run/docker.pid")
	for _, content := range []string{strconv.Itoa(os.Getpid()), "99999999", "nonsense", "../self"} {
		os.MkdirAll(filepath.Dir(file), 0o755)
		os.WriteFile(file, []byte(content), 0o644)
		if err := s.prepareRunDir(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q was left: %v", content, err)
		}
	}
}

func TestRules(t *testing.T) {
	got := rules(netip.MustParseAddr("10.213.0.6"))
	for _, want := range []string{"*nat\n", "-o eth0 -p tcp -j SNAT --to-source 10.213.0.6\n", "-o eth0 -p udp -j SNAT --to-source 10.213.0.6\n", "-i br-+ -o br-+ -j DROP\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("rules lack %q:\n%s", want, got)
		}
	}
}

func TestHTTP(t *testing.T) {
	r := newRig(t, "dockerd")
	mux := http.NewServeMux()
	r.s.Register(mux)
	server := httptest.NewServer(mux)
	defer server.Close()
	defer http.DefaultClient.CloseIdleConnections()
	post := func(path, body string) *http.Response {
		resp, err := http.Post(server.URL+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	for _, bad := range []string{"", "x", `{"profile":"large"}`, `{}`} {
		if resp := post(wire.PathDockerStart, bad); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%q: %s", bad, resp.Status)
		}
	}
	resp := post(wire.PathDockerStart, `{"profile":"minimal"}`)
	var last wire.DockerEvent
	events := json.NewDecoder(resp.Body)
	for events.More() {
		last = wire.DockerEvent{}
		if err := events.Decode(&last); err != nil {
			t.Fatal(err)
		}
	}
	if last.Step != wire.StepReady {
		t.Errorf("last: %+v", last)
	}
	get := func(path string) (*http.Response, string) {
		resp, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(body)
	}
	if _, body := get(wire.PathDockerState + "?wait=1&not=starting"); !strings.Contains(body, `"state":"ready"`) {
		t.Errorf("state: %s", body)
	}
	if resp, body := get("/docker/logs?offset=3"); !strings.HasPrefix(body, "gs:") || resp.Header.Get(innerdock.OutputHeader) != "3" {
		t.Errorf("logs: %q %v", body, resp.Header)
	}
	if resp := post(wire.PathDockerStop, ""); resp.StatusCode != http.StatusNoContent {
		t.Errorf("stop: %s", resp.Status)
	}
}
