package runtime_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/innerdock/innerdock/pkg/runtime"
	"github.com/innerdock/innerdock/pkg/runtime/runtimetest"
)

// memory is what the guest's verb remember tells.
type memory struct {
	Hostname, Memory, Random string
	Files                    map[string]string
}

// remembering are the files of a guest that remembers: its root's, and each
// kind of mount's.
var remembering = []string{"remember", "/file", "/tmp/file", "/dev/shm/file", "/var/lib/docker/file"}

func (h host) remembering(t *testing.T) runtime.Spec {
	s := h.spec(t, remembering...)
	s.Docker, s.DockerDir = true, filepath.Join(filepath.Dir(s.BundleDir), "docker")
	s.Memory, s.Disk, s.Shape = 512*mebibyte, 1<<30, 256*mebibyte
	return s
}

// checkpointed returns the checkpoint of a guest that remembers, and what it
// told before.
func (h host) checkpointed(t *testing.T) (dir string, before memory) {
	t.Helper()
	s := h.remembering(t)
	h.launch(t, s)(&before)
	dir = filepath.Join(h.dir, "checkpoint")
	if err := h.Checkpoint(t.Context(), s.ID, dir, runtime.End); err != nil {
		t.Fatal(err)
	}
	h.remove(t, s.ID)
	return dir, before
}

// A restored sandbox goes on with the memory and all files of the first, under
// its own name, with its own randomness and with another limit of memory; and
// what one writes, the next does not see.
func TestRestoreGoesOn(t *testing.T) {
	h := newHost(t)
	dir, before := h.checkpointed(t)
	random := map[string]bool{before.Random: true}
	for i := range 2 {
		s := h.remembering(t)
		s.Memory, s.Hostname = 300*mebibyte, fmt.Sprintf("copy-%d", i)
		told := runtimetest.Telling(t, s)
		t.Cleanup(func() { h.remove(t, s.ID) })
		if _, err := h.Restore(t.Context(), s, dir); err != nil {
			t.Fatal(err)
		}
		var early, after memory
		told(&early) // the guest may have gathered it before the checkpoint
		told(&after)
		if after.Hostname != s.Hostname || after.Memory != before.Memory {
			t.Errorf("the restored guest is %q and has %q in its memory; want %q and %q", after.Hostname, after.Memory, s.Hostname, before.Memory)
		}
		for path, content := range before.Files {
			if after.Files[path] != content {
				t.Errorf("%s holds %q; want %q", path, after.Files[path], content)
			}
		}
		if random[after.Random] {
			t.Errorf("two sandboxes had the random text %s", after.Random)
		}
		random[after.Random] = true
		if limit, err := os.ReadFile("/sys/fs/cgroup/memory" + runtime.CgroupPath(s.ID) + "/memory.limit_in_bytes"); err == nil &&
			string(limit) != fmt.Sprintln(300*mebibyte*9/8) {
			t.Errorf("the restored sandbox may take %s bytes of memory", limit)
		}
	}
}

// Whatever is wrong with a checkpoint, what comes of it is an error or a dead
// sandbox within moments, and nothing is left.
func TestRestoreOfDamage(t *testing.T) {
	h := newHost(t)
	whole, _ := h.checkpointed(t)
	files, err := os.ReadDir(whole)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(file.Name(), func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(filepath.Join(dir, "c"), os.DirFS(whole)); err != nil {
				t.Fatal(err)
			}
			info, err := file.Info()
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(filepath.Join(dir, "c", file.Name()), info.Size()/2); err != nil {
				t.Fatal(err)
			}
			s := h.remembering(t)
			t.Cleanup(func() { h.remove(t, s.ID) })
			if _, err := h.Restore(t.Context(), s, filepath.Join(dir, "c")); err != nil {
				if _, err := h.State(t.Context(), s.ID); err == nil {
					t.Error("a sandbox that could not be restored is there")
				}
				return
			}
			for end := time.Now().Add(time.Minute); ; {
				state, err := h.State(t.Context(), s.ID)
				if err != nil {
					t.Fatal(err)
				}
				if state.Status == runtime.Stopped {
					return
				}
				if time.Now().After(end) {
					t.Fatalf("half of %s is enough for a sandbox", file.Name())
				}
				<-time.After(20 * time.Millisecond)
			}
		})
	}
}

// A checkpoint is made for one layout: another disk or shape does not fit.
func TestRestoreIntoAnotherLayout(t *testing.T) {
	h := newHost(t)
	dir, _ := h.checkpointed(t)
	for name, change := range map[string]func(*runtime.Spec){
		"disk":  func(s *runtime.Spec) { s.Disk = 2 << 30 },
		"shape": func(s *runtime.Spec) { s.Shape = 512 * mebibyte },
	} {
		s := h.remembering(t)
		change(&s)
		if _, err := h.Restore(t.Context(), s, dir); err == nil {
			t.Errorf("a checkpoint is restored into another %s", name)
			h.remove(t, s.ID)
		}
	}
}
