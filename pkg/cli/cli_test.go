package cli_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/cli"
	"github.com/innerdock/innerdock/pkg/server"
	"github.com/innerdock/innerdock/pkg/server/servertest"
	"github.com/innerdock/innerdock/test/freeport"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) {
	testscript.Main(leakCheck{m}, map[string]func(){"innerdock": func() {
		os.Exit(cli.Main(context.Background(), os.Args[1:], cli.IO{
			Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
		}))
	}})
}

type leakCheck struct{ *testing.M }

func (l leakCheck) Run() int {
	code := l.M.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// rig is a server in this process whose sandboxes have real agents.
type rig struct {
	backend *servertest.Backend
	host    string
	tcp     string
}

// failingDocker is the image whose Docker does not start.
const failingDocker = "sha256:" + "0000000000000000000000000000000000000000000000000000000000000bad"

func newRig(t *testing.T, dir string) (*rig, func()) {
	t.Helper()
	r := &rig{backend: servertest.NewBackend(t), host: "unix://" + filepath.Join(dir, "s.sock")}
	r.backend.Docker = func(spec innerdock.SandboxSpec) innerdock.DockerStatus {
		if spec.Image == failingDocker {
			return innerdock.DockerStatus{
				State: innerdock.DockerFailed, Code: innerdock.CodeDockerNotInstalled,
				Reason: "dockerd not found - please install Docker in your image using Image().with_docker()",
			}
		}
		return innerdock.DockerStatus{State: innerdock.DockerReady, Profile: innerdock.ProfileFull, Version: "29.0.0", Seconds: 1.5}
	}
	s := server.New(server.Config{
		Backend: r.backend, Snapshots: r.backend, Images: servertest.NewImages(), Keys: &servertest.Keys{},
		Version: "test", Runsc: "r1", Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	r.tcp = freeport.Address(t)
	where := server.Listeners{Socket: strings.TrimPrefix(r.host, "unix://"), TCP: []string{r.tcp}}
	go func() { done <- s.Serve(ctx, context.Background(), where, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		cancel()
		t.Fatal(err)
	}
	return r, func() { cancel(); <-done }
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			r, stop := newRig(t, env.WorkDir)
			env.Defer(stop)
			env.Values["rig"] = r
			env.Setenv("INNERDOCK_HOST", r.host)
			env.Setenv("TCP", "http://"+r.tcp)
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("BAD", failingDocker)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":   exits,
			"live":    live,
			"capture": capture,
		},
	})
}

// exits runs a command and wants an exit code: exits 3 innerdock exec …
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

// live wants a number of live sandboxes: live 0
func live(ts *testscript.TestScript, _ bool, args []string) {
	r := ts.Value("rig").(*rig)
	if got := strconv.Itoa(r.backend.Live()); got != args[0] {
		ts.Fatalf("%s live sandboxes, want %s", got, args[0])
	}
}

// capture puts the last standard output into a variable: capture ID
func capture(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// program is innerdock as a process of its own.
func program(r *rig, args ...string) *exec.Cmd {
	cmd := exec.Command("innerdock", args...)
	cmd.Env = append(os.Environ(), "INNERDOCK_HOST="+r.host)
	return cmd
}

func TestInterrupts(t *testing.T) {
	for _, test := range []struct {
		name   string
		args   []string
		signal syscall.Signal
		code   int
	}{
		{"run", []string{"run", "python3.11", "--", "sh", "-c", "echo up; exec sleep 60"}, syscall.SIGINT, 130},
		{"run, terminated", []string{"run", "python3.11", "--", "sh", "-c", "echo up; exec sleep 60"}, syscall.SIGTERM, 143},
		{"run that does not mind", []string{"run", "python3.11", "--", "sh", "-c", "trap 'echo no' INT; echo up; while :; do sleep 0.1; done"}, syscall.SIGINT, 130},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, stop := newRig(t, t.TempDir())
			defer stop()
			cmd := program(r, test.args...)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			up := make([]byte, 3)
			if _, err := out.Read(up); err != nil || string(up) != "up\n" {
				t.Fatalf("%q, %v", up, err)
			}
			if err := cmd.Process.Signal(test.signal); err != nil {
				t.Fatal(err)
			}
			wantExit(t, cmd.Wait(), test.code)
			if n := r.backend.Live(); n != 0 {
				t.Errorf("%d sandboxes left", n)
			}
		})
	}
}

// Ctrl-C while the sandbox is made, or its image: nothing is left.
func TestInterruptEarly(t *testing.T) {
	r, stop := newRig(t, t.TempDir())
	defer stop()
	cmd := program(r, "run", "python3.11", "--", "sleep", "60")
	started := make(chan *os.Process, 1)
	r.backend.OnCreate(func(context.Context) {
		_ = (<-started).Signal(syscall.SIGINT)
		timer := time.NewTimer(100 * time.Millisecond) // it should arrive before the answer does, but need not
		<-timer.C
	})
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	started <- cmd.Process
	wantExit(t, cmd.Wait(), 130)
	if n := r.backend.Live(); n != 0 {
		t.Errorf("%d sandboxes left after an interrupted create", n)
	}
	cmd = program(r, "run", "slow:latest", "--", "sleep", "60")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stderr.Read(make([]byte, 1)); err != nil { // it says that it is building
		t.Fatal(err)
	}
	_ = cmd.Process.Signal(syscall.SIGINT)
	wantExit(t, cmd.Wait(), 130)
}

// A reader that leaves early ends the command, and the sandbox with it.
func TestClosedOutput(t *testing.T) {
	r, stop := newRig(t, t.TempDir())
	defer stop()
	cmd := program(r, "run", "python3.11", "--", "yes")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = out.Read(make([]byte, 10))
	_ = out.Close()
	wantExit(t, cmd.Wait(), 141)
	if n := r.backend.Live(); n != 0 {
		t.Errorf("%d sandboxes left", n)
	}
}

func wantExit(t *testing.T, err error, code int) {
	t.Helper()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != code {
		t.Errorf("ended with %v, want %d", err, code)
	}
}

// TestHelp keeps what --help says of every verb in a file each.
func TestHelp(t *testing.T) {
	seen := map[string]bool{}
	for _, verb := range verbs(t) {
		out := help(t, verb)
		name := strings.ReplaceAll(strings.TrimSpace("innerdock "+verb), " ", "_") + ".txt"
		seen[name] = true
		path := filepath.Join("testdata", "help", name)
		if *update {
			if err := os.WriteFile(path, out, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(out, want) {
			t.Errorf("%s --help is not %s (%v); see the difference with -update and git diff:\n%s", verb, path, err, out)
		}
	}
	kept, _ := filepath.Glob("testdata/help/*.txt")
	for _, path := range kept {
		if !seen[filepath.Base(path)] {
			t.Errorf("%s is of no verb", path)
		}
	}
}

// help is what --help says of a verb.
func help(t *testing.T, verb string) []byte {
	t.Helper()
	var out bytes.Buffer
	args := append(strings.Fields(verb), "--help")
	code := cli.Main(t.Context(), args, cli.IO{Stdout: &out, Stderr: &out, Getenv: func(string) string { return "" }})
	if code != 0 {
		t.Fatalf("%s --help: exit code %d: %s", verb, code, out.String())
	}
	return out.Bytes()
}

// verbs finds all in what --help lists.
func verbs(t *testing.T) []string {
	t.Helper()
	all := []string{""}
	for i := 0; i < len(all); i++ {
		_, list, ok := strings.Cut(string(help(t, all[i])), "Available Commands:\n")
		if !ok {
			continue
		}
		list, _, _ = strings.Cut(list, "\n\n")
		for _, line := range strings.Split(list, "\n") {
			if fields := strings.Fields(line); len(fields) > 0 && fields[0] != "help" {
				all = append(all, strings.TrimSpace(all[i]+" "+fields[0]))
			}
		}
	}
	return all
}
