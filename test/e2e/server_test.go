// Package e2e runs the innerdock binary as its users do: a real server with real
// runsc, dockerd, network and images, driven through its API and its CLI. Every
// test cleans up after itself, and what is left on the host is counted. Tests that
// have a server of their own run side by side; so do those of the shared one that
// neither count what it has nor measure.
package e2e

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/test/census"
	"github.com/innerdock/innerdock/test/freepool"
)

// binary is what `make build` makes.
const binary = "../../bin/innerdock"

// shared is the server that most tests use; those that kill it start their own.
var shared *server

func TestMain(m *testing.M) { os.Exit(run(m)) }

// atATime is how many of the tests run side by side that have said that they may,
// after all others: they wait for most of the time. -parallel decides otherwise.
const atATime = "2"

func run(m *testing.M) int {
	if err := flag.Set("test.parallel", atATime); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if _, err := os.Stat(binary); err != nil {
		fmt.Fprintln(os.Stderr, "no bin/innerdock; run `make build` first, or the tests by `make test`")
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var err error
	if shared, err = newServer(220); err == nil {
		err = shared.start(ctx)
	}
	if err == nil {
		err = shared.seed(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := shared.remove(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// server is one innerdock server, in a data directory of its own.
type server struct {
	dir    string
	claim  netip.Prefix // of addresses
	pool   string       // --pool: all of them, or fewer
	flags  []string
	client *innerdock.Client
	cmd    *exec.Cmd
	log    *lockedBuffer
	exited chan struct{}
}

// newServer is a server in an address pool that begins with 10.second.
func newServer(second byte) (*server, error) {
	claim, err := freepool.In(second)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("/var/tmp", "idk-")
	if err != nil {
		return nil, err
	}
	client, err := innerdock.New("unix://"+filepath.Join(dir, "api.sock"), "")
	return &server{dir: dir, claim: claim, pool: claim.String(), client: client, log: &lockedBuffer{}}, err
}

// ownServer is a server that one test has to itself.
func ownServer(t *testing.T, second byte, flags ...string) *server {
	t.Helper()
	s, err := newServer(second)
	if err != nil {
		t.Fatal(err)
	}
	s.flags = flags
	s.startFor(t)
	return s
}

// listening is a server that a test has to itself and that listens for TCP, too.
func listening(t *testing.T, second byte, flags ...string) *server {
	t.Helper()
	s, err := newServer(second)
	if err != nil {
		t.Fatal(err)
	}
	s.flags = append([]string{"--listen", s.address()}, flags...)
	s.startFor(t)
	return s
}

// tenant is a client of another tenant of a server that listens.
func (s *server) tenant(t *testing.T, name string) *innerdock.Client {
	t.Helper()
	made, err := s.client.CreateKey(t.Context(), innerdock.KeySpec{Name: name, Tenant: name})
	if err != nil {
		t.Fatal(err)
	}
	client, err := innerdock.New("http://"+s.address(), made.Key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// startFor starts a server that is removed at the test's end.
func (s *server) startFor(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		if err := s.remove(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	if err := s.start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (s *server) host() string { return "unix://" + filepath.Join(s.dir, "api.sock") }
func (s *server) data() string { return filepath.Join(s.dir, "data") }

// address is where a server may listen for TCP: an address of loopback that is as
// much its own as its pool, and a port that nothing connects from.
func (s *server) address() string {
	ip := s.claim.Addr().As4()
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, ip[1], ip[2], 1}), 7070).String()
}

// cacheDir is where the project's scripts cache what takes long to make.
func cacheDir() string {
	if dir := os.Getenv("INNERDOCK_CACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		panic(err)
	}
	return filepath.Join(dir, "innerdock")
}

func (s *server) start(ctx context.Context) error {
	runsc, err := exec.CommandContext(ctx, "../../tools/runsc/build.sh").Output()
	if err != nil {
		return fmt.Errorf("building runsc: %w", err)
	}
	s.cmd = exec.Command(binary, "server", "--data", s.data(), "--socket", filepath.Join(s.dir, "api.sock"),
		"--images", filepath.Join(cacheDir(), "images"), "--runsc", strings.TrimSpace(string(runsc)),
		"--pool", s.pool, "--log-level", "debug")
	s.cmd.Args = append(s.cmd.Args, s.flags...)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.exited = make(chan struct{})
	go func() { _ = s.cmd.Wait(); close(s.exited) }()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return until(ctx, func() error {
		select {
		case <-s.exited:
			return errFinal{fmt.Errorf("the server ended:\n%s", s.log)}
		default:
		}
		_, err := s.client.Version(ctx)
		return err
	})
}

// seed fills the registry cache where Docker Hub is out of reach.
func (s *server) seed(ctx context.Context) error {
	return s.client.SeedRegistry(ctx, innerdock.SeedSpec{IfOffline: true}, nil)
}

// signal sends sig to the server and waits until it has ended.
func (s *server) signal(sig syscall.Signal) error {
	if err := s.cmd.Process.Signal(sig); err != nil {
		return err
	}
	select {
	case <-s.exited:
		return nil
	case <-time.After(patience):
		return errors.New("the server does not end")
	}
}

// remove terminates what lives, stops the server and its traces, and fails when
// anything is left of its sandboxes.
func (s *server) remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	defer freepool.Release(s.claim)
	var failures error
	if live, err := s.client.Sandboxes(ctx, false); err == nil {
		for _, sandbox := range live {
			_, err := s.client.Terminate(ctx, sandbox.ID)
			failures = errors.Join(failures, err)
		}
		failures = errors.Join(failures, s.client.EndBuilder(ctx), s.signal(syscall.SIGTERM))
	}
	s.client.Close()
	left, err := census.Take(ctx, s.data())
	failures = errors.Join(failures, err)
	if len(left) > 0 {
		failures = errors.Join(failures, fmt.Errorf("the server's log:\n%s\nleft on the host:\n%s", s.log, strings.Join(left, "\n")))
	}
	return errors.Join(failures, os.RemoveAll(s.dir))
}

// noTrace fails the test when anything is left of an ended sandbox.
func (s *server) noTrace(t *testing.T, id string) {
	t.Helper()
	left, err := census.Take(context.WithoutCancel(t.Context()), s.data())
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range left {
		if strings.Contains(line, id) {
			t.Errorf("left of %s: %s", id, line)
		}
	}
}

// errFinal ends until at once.
type errFinal struct{ error }

// patience is how long tests wait for what has no deadline of its own: far longer
// than it takes, as the machine may be busy with other things.
const patience = 3 * time.Minute

// eventually tries what has no event to wait for until it succeeds.
func eventually(t *testing.T, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := until(ctx, try); err != nil {
		t.Fatal(err)
	}
}

// until is eventually for those who have a deadline.
func until(ctx context.Context, try func() error) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	var last error
	for {
		err := try()
		if ctx.Err() == nil {
			last = err
		}
		var final errFinal
		if err == nil || errors.As(err, &final) {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%w; at last: %w", context.Cause(ctx), last)
		}
	}
}

type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// python is the seed's image without Docker, withDocker the one with it. They
// are built once and then found in the cache.
var (
	python     = innerdock.ImageDefinition{PythonVersion: "python3.11"}
	withDocker = innerdock.ImageDefinition{PythonVersion: "python3.11",
		Steps: []innerdock.ImageStep{{Docker: &innerdock.DockerInstall{}}}}
)

func (s *server) image(t *testing.T, def innerdock.ImageDefinition) innerdock.Image {
	t.Helper()
	var log strings.Builder
	image, err := s.client.BuildImage(t.Context(), def, func(_ string, e innerdock.BuildEvent) {
		fmt.Fprintln(&log, e.Step, e.Message)
	})
	if err != nil {
		t.Fatalf("building the image: %v\n%s", err, log.String())
	}
	return image
}

// create makes a sandbox that is terminated, and looked for, at the test's end.
func (s *server) create(t *testing.T, def innerdock.ImageDefinition, spec innerdock.SandboxSpec) innerdock.Sandbox {
	t.Helper()
	if spec.Snapshot == "" {
		spec.Image = s.image(t, def).ID
	}
	sandbox, err := s.client.CreateSandbox(t.Context(), spec)
	if err != nil {
		t.Fatalf("creating a sandbox: %v\n%s", err, s.log)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if t.Failed() {
			log, _ := s.client.Logs(ctx, sandbox.ID)
			t.Logf("log of %s:\n%s", sandbox.ID, log)
		}
		if _, err := s.client.Terminate(ctx, sandbox.ID); err != nil {
			t.Errorf("terminating %s: %v", sandbox.ID, err)
		}
		s.noTrace(t, sandbox.ID)
	})
	return sandbox
}

// createWithDocker is create, with Docker ready.
func (s *server) createWithDocker(t *testing.T, spec innerdock.SandboxSpec) innerdock.Sandbox {
	t.Helper()
	spec.Docker.Enabled = true
	sandbox := s.create(t, withDocker, spec)
	if _, err := s.client.WaitDocker(t.Context(), sandbox.ID); err != nil {
		t.Fatalf("Docker: %v", err)
	}
	return sandbox
}

// result is how a command in a sandbox went.
type result struct {
	stdout, stderr string
	code           int
}

// longestExec is how long a command of a test may take: one that waits for what
// never comes must not hold up all tests.
const longestExec = 5 * time.Minute

// exec runs a command in a sandbox; failing to run it fails the test.
func (s *server) exec(t *testing.T, id string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), longestExec)
	defer cancel()
	var stdout, stderr bytes.Buffer
	process, err := s.client.Exec(ctx, id, innerdock.ProcessSpec{Args: args},
		innerdock.Streams{Stdout: &stdout, Stderr: &stderr})
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return result{stdout.String(), stderr.String(), *process.ExitCode}
}

// sh runs a line of shell, which must succeed, and returns its output.
func (s *server) sh(t *testing.T, id, line string) string {
	t.Helper()
	got := s.exec(t, id, "sh", "-c", line)
	if got.code != 0 {
		t.Fatalf("%s: exit code %d\n%s%s", line, got.code, got.stdout, got.stderr)
	}
	return got.stdout
}

// cli runs the innerdock command against the server.
func (s *server) cli(t *testing.T, stdin io.Reader, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := s.command(t.Context(), args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

func (s *server) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(os.Environ(), "INNERDOCK_HOST="+s.host())
	return cmd
}

func wantCode(t *testing.T, err error, code innerdock.Code, words ...string) {
	t.Helper()
	if innerdock.CodeOf(err) != code {
		t.Errorf("got code %q (%v); want %q", innerdock.CodeOf(err), err, code)
	}
	for _, word := range words {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%v does not say %q", err, word)
		}
	}
}
