package runtime_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/innerdock/innerdock/pkg/runtime"
	"github.com/innerdock/innerdock/pkg/runtime/runtimetest"
	"go.uber.org/goleak"
)

// rootfs is the root of all tests, made in rootfsDir by the first that needs it.
var rootfs, rootfsDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "innerdock-runtime-")
	if err != nil {
		panic(err)
	}
	rootfsDir = dir
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// host is one server's runtime and directories.
type host struct {
	*runtime.Runsc
	dir string
}

func newHost(t testing.TB) host {
	t.Helper()
	dir := t.TempDir()
	r, err := runtime.NewRunsc(t.Context(), runtime.RunscConfig{Path: runtimetest.Runsc(t), Root: dir + "/runsc"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if rootfs == "" {
		rootfs = runtimetest.Rootfs(t, rootfsDir)
	}
	return host{Runsc: r, dir: dir}
}

func (h host) spec(t testing.TB, guest ...string) runtime.Spec {
	return runtimetest.NewSpec(t, h.dir, rootfs, guest...)
}

func TestRunscSuite(t *testing.T) {
	h := newHost(t)
	runtimetest.Suite(t, runtimetest.Subject{Runtime: h, NewSpec: h.spec})
}

// stateFile is where runsc writes down what it knows of a sandbox.
func (h host) stateFile(id string) string {
	return filepath.Join(h.dir, "runsc", id+"_sandbox:"+id+".state")
}

// remove deletes a sandbox and checks that its cgroup is gone.
func (h host) remove(t testing.TB, id string) {
	t.Helper()
	if err := h.Delete(context.Background(), id); err != nil {
		t.Error(err)
	}
	left, err := filepath.Glob("/sys/fs/cgroup/*" + runtime.CgroupPath(id))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q %v", left, err)
	}
}

// A new server ends the commands of the one before it, on its own root only,
// and leaves the sandboxes alone.
func TestClaim(t *testing.T) {
	mine, other := newHost(t), newHost(t)
	waiting := func(h host) (id string, ended chan error) {
		s := h.spec(t, "sleep")
		h.launch(t, s)
		ended = make(chan error, 1)
		go func() {
			_, err := h.Wait(t.Context(), s.ID)
			ended <- err
		}()
		return s.ID, ended
	}
	id, ended := waiting(mine)
	_, undisturbed := waiting(other)
	for claimed := false; !claimed; { // Wait may not have come to its command yet
		if err := mine.Claim(t.Context()); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if err == nil {
				t.Error("the command of the earlier server ended by itself")
			}
			claimed = true
		case err := <-undisturbed:
			t.Fatalf("the command of another server ended: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	if state, err := mine.State(t.Context(), id); err != nil || state.Status != runtime.Running {
		t.Errorf("after the claim the sandbox is %+v, %v; want it to run", state, err)
	}
	other.remove(t, other.only(t))
	<-undisturbed
}

// A pause that was killed before it wrote down that it had paused the kernel can be
// resumed, and made again.
func TestAKilledPause(t *testing.T) {
	h := newHost(t)
	s := h.spec(t, "spin", "1")
	told := h.launch(t, s)
	for _, again := range []func(context.Context, string) error{h.Resume, h.Pause} {
		if err := h.Pause(t.Context(), s.ID); err != nil {
			t.Fatal(err)
		}
		state, err := os.ReadFile(h.stateFile(s.ID))
		if err != nil {
			t.Fatal(err)
		}
		running := bytes.Replace(state, []byte(`"paused"`), []byte(`"running"`), 1)
		if bytes.Equal(state, running) {
			t.Fatalf("runsc has not written that it is paused: %s", state)
		}
		if err := os.WriteFile(h.stateFile(s.ID), running, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := again(t.Context(), s.ID); err != nil {
			t.Error(err)
		}
	}
	if err := h.Resume(t.Context(), s.ID); err != nil {
		t.Error(err)
	}
	told(nil) // it went on to its end
}

// only returns the one sandbox that there is.
func (h host) only(t *testing.T) string {
	t.Helper()
	list, err := h.List(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("the list is %+v, %v; want one sandbox", list, err)
	}
	return list[0].ID
}
