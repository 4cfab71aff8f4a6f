package runtime_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

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
