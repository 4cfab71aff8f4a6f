package runtime_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/innerdock/innerdock/pkg/runtime"
)

// The cgroup of all sandboxes is there before the first one, so that it is not the
// first one's, with version 2; runsc sees to version 1.
func TestTheParentOfAllCgroups(t *testing.T) {
	unified := "/sys/fs/cgroup"
	if _, err := os.Stat(unified + "/cgroup.controllers"); err != nil {
		unified += "/unified"
	}
	parent := filepath.Dir(unified + runtime.CgroupPath("id"))
	if _, err := os.Stat(parent); errors.Is(err, os.ErrNotExist) {
		t.Cleanup(func() { _ = os.Remove(parent) })
	}
	for range 2 {
		if err := runtime.MakeParent(unified); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(parent + "/cgroup.procs"); err != nil {
			t.Error(err)
		}
	}
	other := t.TempDir()
	if err := runtime.MakeParent(other); err != nil {
		t.Fatal(err)
	}
	if made, err := os.ReadDir(other); err != nil || len(made) > 0 {
		t.Errorf("without version 2 it made %v, %v", made, err)
	}
}
