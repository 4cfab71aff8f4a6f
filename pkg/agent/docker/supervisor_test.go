package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
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
	socket := root + publicSocket
	if slices.Contains(os.Args, "--host=unix://"+privateSocket) {
		socket = root + privateSocket
	}
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
	case "old":
		if i := slices.IndexFunc(os.Args, func(a string) bool { return strings.HasPrefix(a, networkOption) }); i > 0 {
			fmt.Println("Status: unknown flag: " + networkOption)
			return 125
		}
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
		case r.URL.Path == "/networks":
			fmt.Fprint(w, "[]")
		default:
			commit := "N/A"
			if dials(root + containerdSocket) {
				commit = "abc"
			}
			if file, err := os.OpenFile(filepath.Join(root, "aloof"), os.O_WRONLY|os.O_APPEND, 0); err == nil {
				commit = "N/A" // it has not dialled again
				file.WriteString("asked\n")
				file.Close()
			}
			fmt.Fprintf(w, `{"ServerVersion":"99.%d","ContainerdCommit":{"ID":%q}}`, os.Getpid(), commit)
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
	steps, last, err := r.start(time.Minute, full)
	if err != nil {
		t.Fatal(err, r.log())
	}
	if got := strings.Join(steps, " "); got != "installed run-dir kernel daemon socket info ready" {
		t.Errorf("steps: %s", got)
	}
	if !strings.HasPrefix(last.Version, "99.") || r.s.Report().State != innerdock.DockerReady || r.s.Report().Version != last.Version {
		t.Errorf("last %+v, report %+v", last, r.s.Report())
	}
	steps, again, err := r.start(time.Minute, full)
	if err != nil || len(steps) != 1 || again.Step != wire.StepReady || again.Version != last.Version {
		t.Errorf("again: %v %+v %v", steps, again, err)
	}
	if err := r.s.Stop(t.Context()); err != nil || r.s.Report().State != innerdock.DockerDisabled {
		t.Errorf("stop: %v, %+v", err, r.s.Report())
	}
	if got := r.log(); !strings.Contains(got, "stopped dockerd") || strings.Index(got, "stopped containerd") < strings.Index(got, "stopped dockerd") {
		t.Errorf("log: %s", got)
	}
	if _, next, err := r.start(time.Minute, full); err != nil || next.Version == last.Version {
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
		{name: "crash", dockerd: "crash", limit: time.Minute, step: wire.StepSocket, code: innerdock.CodeDockerFailed, says: "dockerd exited (exit code 3)", exit: 3},
		{name: "crash when asked", dockerd: "crash when asked", limit: time.Minute, step: wire.StepInfo, code: innerdock.CodeDockerFailed, says: "exit code 4", exit: 4},
		{name: "containerd crash", containerd: "crash", limit: time.Minute, step: wire.StepDaemon, code: innerdock.CodeDockerFailed, says: "containerd exited (exit code 3)", exit: 3},
		{name: "no socket", dockerd: "no socket", limit: 3 * time.Second, step: wire.StepSocket, code: innerdock.CodeDockerTimeout, says: "has not made its socket"},
		{name: "no answer", dockerd: "never", limit: 5 * time.Second, step: wire.StepInfo, code: innerdock.CodeDockerTimeout, says: "has not answered info (asked "},
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
			if c.name == "no answer" && last.Attempt < 2 {
				t.Errorf("it was asked %d times", last.Attempt)
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
			if _, last, err := r.start(time.Minute, full); err != nil || last.Step != wire.StepReady {
				t.Errorf("the next start: %v %+v", err, last)
			}
		})
	}
}

func TestNotInstalled(t *testing.T) {
	r := newRig(t)
	_, last, err := r.start(time.Minute, full)
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
	_, ready, err := r.start(time.Minute, full)
	if err != nil {
		t.Fatal(err)
	}
	r.does("dockerd", "crash")
	pid, _ := strconv.Atoi(strings.TrimPrefix(ready.Version, "99."))
	syscall.Kill(pid, syscall.SIGKILL)
	report := r.s.Await(t.Context(), innerdock.DockerReady, AnyRestarts, time.Minute)
	if report.State != innerdock.DockerRestarting || report.Restarts != 1 || !strings.Contains(report.Reason, "SIGKILL") || *report.ExitCode != 137 {
		t.Errorf("report: %+v", report)
	}
	await(t, "a second try", func() bool { return r.s.Report().Restarts > 1 })
	r.does("dockerd", "")
	report = r.s.Await(t.Context(), innerdock.DockerRestarting, AnyRestarts, time.Minute)
	if report.State != innerdock.DockerReady || report.Version == ready.Version {
		t.Errorf("report: %+v", report)
	}
	aloof := filepath.Join(r.root, "aloof")
	os.WriteFile(aloof, nil, 0o644)
	syscall.Kill(r.s.containerd.PID(), syscall.SIGKILL)
	if report := r.s.Await(t.Context(), innerdock.DockerReady, AnyRestarts, time.Minute); !strings.HasPrefix(report.Reason, "containerd exited") {
		t.Errorf("report: %+v", report)
	}
	// It is not ready before dockerd has found the new containerd.
	await(t, "dockerd to be asked", func() bool {
		asked, _ := os.ReadFile(aloof)
		return strings.Count(string(asked), "asked") > 2
	})
	if report := r.s.Report(); report.State != innerdock.DockerRestarting {
		t.Errorf("report: %+v", report)
	}
	os.Remove(aloof)
	if after := r.s.Await(t.Context(), innerdock.DockerRestarting, AnyRestarts, time.Minute); after.Version != report.Version {
		t.Errorf("dockerd was restarted with containerd: %+v", after)
	}
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("timed out: ", what)
		}
	}
}

// What does not come back has failed, and says why.
func TestGivesUp(t *testing.T) {
	r := newRig(t, "dockerd", "containerd")
	_, ready, err := r.start(time.Minute, full)
	if err != nil {
		t.Fatal(err)
	}
	r.does("dockerd", "crash")
	pid, _ := strconv.Atoi(strings.TrimPrefix(ready.Version, "99."))
	syscall.Kill(pid, syscall.SIGKILL)
	await(t, "it to be given up", func() bool { return r.s.Report().State == innerdock.DockerFailed })
	report := r.s.Report()
	if report.Restarts != maxFailures || !strings.Contains(report.Reason, "dockerd exited (exit code 3)") || !strings.Contains(report.Log, "last words") {
		t.Errorf("report: %+v", report)
	}
	if status, body := r.ask("/version"); status != http.StatusServiceUnavailable || !strings.Contains(body, "restarts failed") {
		t.Errorf("a call: %d %q", status, body)
	}
	if n := r.s.cfg.Reaper.Running(); n != 0 {
		t.Errorf("%d daemons are left", n)
	}
	r.does("dockerd", "")
	if _, last, err := r.start(time.Minute, full); err != nil || last.Step != wire.StepReady {
		t.Errorf("the next start: %v %+v", err, last)
	}
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
