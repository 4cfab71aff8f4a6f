// Package runtimetest has the suite that every runtime.Runtime passes, and what
// tests need to start real sandboxes: a root file system with package guest's
// program as PID 1, and the pinned runsc.
package runtimetest

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/innerdock/innerdock/pkg/runtime"
)

// Guest is the path of the test program in the root file system. GuestSUID is a
// copy that runs as root, whoever starts it.
const (
	Guest     = "/guest"
	GuestSUID = "/guest-suid"
)

// tellTimeout is how long a guest has to tell its result.
const tellTimeout = 30 * time.Second

// Runsc returns the path of the pinned runsc, or of the one that the environment
// variable INNERDOCK_RUNSC names, and fails the test without it.
func Runsc(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("sandboxes need root; run the tests as root")
	}
	if path := os.Getenv("INNERDOCK_RUNSC"); path != "" {
		return path
	}
	script := filepath.Join(moduleDir(t), "tools/runsc/build.sh")
	out, err := exec.Command(script, "--path").Output()
	if err != nil {
		t.Fatalf("%s --path: %v", script, err)
	}
	path := strings.TrimSpace(string(out))
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("the pinned runsc is missing; build it with: make runsc (%v)", err)
	}
	return path
}

// Rootfs builds the guest and returns an EROFS file with it, the two usual
// temporary directories and a file /etc/old. It lies in dir.
func Rootfs(t testing.TB, dir string) string {
	t.Helper()
	tree := filepath.Join(dir, "tree")
	for _, sub := range []string{"tmp", "etc", "run", "var/lib", "proc", "sys", "dev"} {
		if err := os.MkdirAll(filepath.Join(tree, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(tree, Guest), "./pkg/runtime/runtimetest/guest")
	build.Dir = moduleDir(t)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	run(t, build)
	run(t, exec.Command("cp", filepath.Join(tree, Guest), filepath.Join(tree, GuestSUID)))
	if err := os.Chmod(filepath.Join(tree, GuestSUID), 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "etc/old"), []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(dir, "rootfs.erofs")
	if _, err := exec.LookPath("mkfs.erofs"); err != nil {
		t.Fatal("mkfs.erofs is missing; install it with: apt-get install -y erofs-utils")
	}
	run(t, exec.Command("mkfs.erofs", "--quiet", "-E", "noinline_data", image, tree))
	return image
}

func run(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}

func moduleDir(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatalf("go env GOMOD: %v", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}

// NewID returns a sandbox ID that no other has.
func NewID() string {
	random := make([]byte, 8)
	rand.Read(random)
	return strings.ToLower(base32.StdEncoding.EncodeToString(random))[:12]
}

// NewSpec describes a sandbox whose PID 1 is the guest with these arguments. Its
// directories lie in dir, which sandboxes of one server share.
func NewSpec(t testing.TB, dir, rootfs string, guest ...string) runtime.Spec {
	t.Helper()
	id := NewID()
	own := filepath.Join(dir, "sandboxes", id)
	s := runtime.Spec{
		ID: id, Rootfs: rootfs, ScratchDir: filepath.Join(dir, "scratch"),
		Args: append([]string{Guest}, guest...), Env: []string{"PATH=/"},
		ControlDir: filepath.Join(own, "control"), AgentDir: filepath.Join(dir, "agent"), BundleDir: filepath.Join(own, "bundle"),
	}
	for _, d := range []string{s.ControlDir, s.AgentDir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// Telling listens on the control socket of a sandbox and returns a function
// that waits for what the guest tells and decodes it into result.
func Telling(t testing.TB, s runtime.Spec) func(result any) {
	t.Helper()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(s.ControlDir, "agent.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return func(result any) {
		t.Helper()
		if err := listener.SetDeadline(time.Now().Add(tellTimeout)); err != nil {
			t.Fatal(err)
		}
		line := nextLine(t, listener)
		var failed struct{ Error string }
		if err := json.Unmarshal(line, &failed); err == nil && failed.Error != "" && result == nil {
			t.Fatalf("the guest failed: %s", failed.Error)
		}
		if result == nil {
			return
		}
		if err := json.Unmarshal(line, result); err != nil {
			t.Fatalf("the guest told %s: %v", line, err)
		}
	}
}

// nextLine returns the JSON of the next connection that sends any.
func nextLine(t testing.TB, listener *net.UnixListener) (line json.RawMessage) {
	t.Helper()
	for {
		conn, err := listener.Accept()
		if err != nil {
			t.Fatalf("the guest told nothing: %v", err)
		}
		if err := conn.SetDeadline(time.Now().Add(tellTimeout)); err != nil {
			t.Fatal(err)
		}
		err = json.NewDecoder(conn).Decode(&line)
		conn.Close()
		if err == nil {
			return line
		}
		if !errors.Is(err, io.EOF) {
			t.Fatalf("the guest told no JSON: %v", err)
		}
	}
}
