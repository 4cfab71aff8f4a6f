package runtime_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/runtime"
	"github.com/innerdock/innerdock/pkg/runtime/runtimetest"
)

const (
	mebibyte = 1 << 20
	plenty   = 2 << 30 // more than any limit below
)

// A program that takes more memory than the sandbox has ends with the sandbox;
// one that takes less lives. The host's kernel counts, whatever the guest does.
func TestMemoryLimitBinds(t *testing.T) {
	h := newHost(t)
	s := h.spec(t, "eat", strconv.Itoa(64*mebibyte))
	s.Memory = 256 * mebibyte
	var eaten struct{ Eaten int }
	h.launch(t, s)(&eaten)
	if eaten.Eaten != 64*mebibyte {
		t.Errorf("a program got %d bytes; want 64 MiB of a limit of 256", eaten.Eaten)
	}

	s = h.spec(t, "eat", strconv.Itoa(plenty))
	s.Memory = 256 * mebibyte
	h.launch(t, s)
	code, err := h.Wait(t.Context(), s.ID)
	if !errors.Is(err, runtime.ErrExitUnknown) || innerdock.CodeOf(err) != innerdock.CodeSandboxTerminated {
		t.Errorf("the end by lack of memory is (%d, %v); want ErrExitUnknown", code, err)
	}
	if !runtime.OOMKilled(s.ID) {
		t.Error("nobody knows that the sandbox ran out of memory")
	}
	if state, err := h.State(t.Context(), s.ID); err != nil || state.Status != runtime.Stopped {
		t.Errorf("the state is %+v, %v; want stopped", state, err)
	}
}

// Files in a tmpfs are the sandbox's memory too. /dev/shm would be full before.
func TestMemoryLimitCountsTmpfs(t *testing.T) {
	h := newHost(t)
	s := h.spec(t, "fill", "/dev/big", strconv.Itoa(plenty))
	s.Memory = 256 * mebibyte
	h.launch(t, s)
	if _, err := h.Wait(t.Context(), s.ID); !errors.Is(err, runtime.ErrExitUnknown) {
		t.Errorf("the end by lack of memory is %v; want ErrExitUnknown", err)
	}
	if !runtime.OOMKilled(s.ID) {
		t.Error("nobody knows that the sandbox ran out of memory")
	}
}

// Four busy threads for two seconds get half a core, and so about one second.
func TestCPULimitBinds(t *testing.T) {
	const wall = 2.0
	h := newHost(t)
	s := h.spec(t, "spin", strconv.FormatFloat(wall, 'g', -1, 64))
	s.CPU = 0.5
	told := h.launch(t, s)
	used, began := cpuTime(t, s.ID), time.Now()
	told(nil)
	cores := (cpuTime(t, s.ID) - used).Seconds() / time.Since(began).Seconds()
	t.Logf("it used %.2f cores", cores)
	if cores > 0.65 || cores < 0.05 {
		t.Errorf("a sandbox of 0.5 cores used %.2f", cores)
	}
}

// Busy threads use no CPU while their sandbox is paused, and go on after. What its
// kernel uses is less than a hundredth of what they would.
func TestPausedUsesNoCPU(t *testing.T) {
	h := newHost(t)
	s := h.spec(t, "spin", "1")
	told := h.launch(t, s)
	if err := h.Pause(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	before := cpuTime(t, s.ID)
	time.Sleep(2 * time.Second) // in which nothing may happen
	if used := cpuTime(t, s.ID) - before; used > 20*time.Millisecond {
		t.Errorf("a paused sandbox used %s of CPU in 2 s", used)
	}
	if err := h.Resume(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	told(nil)
	if cpuTime(t, s.ID) == before {
		t.Error("the sandbox did not go on")
	}
}

func cpuTime(t *testing.T, id string) time.Duration {
	t.Helper()
	if text, err := os.ReadFile("/sys/fs/cgroup/cpuacct" + runtime.CgroupPath(id) + "/cpuacct.usage"); err == nil {
		n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(n)
	}
	text, err := os.ReadFile("/sys/fs/cgroup" + runtime.CgroupPath(id) + "/cpu.stat")
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	n, err := strconv.ParseInt(strings.TrimPrefix(first, "usage_usec "), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(n) * time.Microsecond
}

// The limit of tasks is in the host's cgroup; nothing in it may grow beyond.
func TestPIDLimitIsSet(t *testing.T) {
	h := newHost(t)
	s := h.spec(t, "describe")
	s.PIDs = 333
	h.launch(t, s)(nil)
	for _, file := range []string{"/sys/fs/cgroup/pids" + runtime.CgroupPath(s.ID) + "/pids.max", "/sys/fs/cgroup" + runtime.CgroupPath(s.ID) + "/pids.max"} {
		if text, err := os.ReadFile(file); err == nil {
			if got := strings.TrimSpace(string(text)); got != "333" {
				t.Errorf("%s is %s; want 333", file, got)
			}
			return
		}
	}
	t.Error("there is no limit of tasks")
}

// Each place that a sandbox writes to is on disk, not in its memory, and ends
// where Disk says.
func TestDiskLimitBinds(t *testing.T) {
	h := newHost(t)
	const disk = 64 * mebibyte
	for _, path := range []string{"/big", "/tmp/big", "/var/lib/docker/big"} {
		s := h.spec(t, "fill", path, strconv.Itoa(plenty))
		s.Disk, s.Memory = disk, 1<<30
		s.Docker, s.DockerDir = true, filepath.Join(h.dir, "docker")
		var filled struct {
			Written int
			Full    bool
		}
		h.launch(t, s)(&filled)
		if !filled.Full || filled.Written > disk || filled.Written < disk*9/10 {
			t.Errorf("%s: %d bytes could be written, full is %t; want it to be full at about %d", path, filled.Written, filled.Full, disk)
		}
		h.remove(t, s.ID)
		for _, dir := range []string{s.ScratchDir, s.BundleDir + "/tmp", s.DockerDir} {
			files, err := filepath.Glob(dir + "/.gvisor.filestore.*")
			if err != nil || len(files) > 0 {
				t.Errorf("left in %s: %q %v", dir, files, err)
			}
		}
	}
}

// The places have one limit together: what one has, another lacks, and what is
// removed from one can be written to another. A restore keeps the count.
func TestDiskLimitIsOfAllPlaces(t *testing.T) {
	h := newHost(t)
	const disk = 64 * mebibyte
	places := []string{"/big", "/tmp/big", "/var/lib/docker/big"}
	spec := func() runtime.Spec {
		s := h.spec(t, append([]string{"share", strconv.Itoa(disk * 2 / 5)}, places...)...)
		s.Disk, s.Memory = disk, 512*mebibyte
		s.Docker, s.DockerDir = true, filepath.Join(filepath.Dir(s.BundleDir), "docker")
		return s
	}
	check := func(when string, told func(any)) {
		t.Helper()
		var got map[string]struct {
			Written int
			Full    bool
		}
		told(&got)
		sum := 0
		for _, place := range places {
			sum += got[place].Written
		}
		if sum > disk || sum < disk*9/10 || got[places[0]].Full || got[places[1]].Full || !got[places[2]].Full {
			t.Errorf("%s: of %d bytes for all places together, they got %+v", when, disk, got)
		}
	}
	s := spec()
	check("at first", h.launch(t, s))
	dir := filepath.Join(h.dir, "checkpoint")
	if err := h.Checkpoint(t.Context(), s.ID, dir, runtime.End); err != nil {
		t.Fatal(err)
	}
	h.remove(t, s.ID)

	s = spec()
	told := runtimetest.Telling(t, s)
	t.Cleanup(func() { h.remove(t, s.ID) })
	if _, err := h.Restore(t.Context(), s, dir); err != nil {
		t.Fatal(err)
	}
	check("after a restore", told)
}

// More data than memory can be written, because the host's kernel moves it to
// the disk.
func TestDiskIsNotMemory(t *testing.T) {
	h := newHost(t)
	const size = 400 * mebibyte
	for _, path := range []string{"/big", "/tmp/big", "/var/lib/docker/big"} {
		s := h.spec(t, "fill", path, strconv.Itoa(size))
		s.Disk, s.Memory = 1<<30, 256*mebibyte
		s.Docker, s.DockerDir = true, filepath.Join(h.dir, "docker")
		var filled struct{ Written int }
		h.launch(t, s)(&filled)
		if filled.Written < size {
			t.Errorf("%s: %d bytes could be written; want %d", path, filled.Written, size)
		}
		h.remove(t, s.ID)
	}
}

// Delete finds what runsc does not know of: processes in the cgroup.
func TestDeleteKillsWhatIsLeft(t *testing.T) {
	h := newHost(t)
	told := h.launch(t, h.spec(t, "describe")) // a neighbour that must survive
	for name, spoil := range map[string]func(state string) error{
		"runsc was killed before it wrote of it": func(state string) error {
			return errors.Join(os.Remove(state), os.Remove(strings.TrimSuffix(state, "state")+"lock"))
		},
		"the host crashed while it was written": func(state string) error { return os.Truncate(state, 0) },
		"the host crashed before its blocks were": func(state string) error {
			return errors.Join(os.Truncate(state, 0), os.Truncate(state, 100))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := h.spec(t, "sleep")
			if _, err := h.Create(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			state, err := h.State(t.Context(), s.ID)
			if err != nil {
				t.Fatal(err)
			}
			if err := spoil(h.stateFile(s.ID)); err != nil {
				t.Fatal(err)
			}
			if _, err := h.State(t.Context(), s.ID); !errors.Is(err, runtime.ErrNotFound) {
				t.Errorf("its state: %v; want that it is not found", err)
			}
			h.remove(t, s.ID)
			if err := syscall.Kill(state.PID, 0); err == nil {
				stat, _ := os.ReadFile("/proc/" + strconv.Itoa(state.PID) + "/stat")
				if !strings.Contains(string(stat), ") Z ") {
					t.Errorf("the sandbox's kernel still runs: %s", stat)
				}
			}
		})
	}
	told(nil)
}

// A state that cannot be read for now is none that is not there: its sandbox lives.
func TestAnUnreadableState(t *testing.T) {
	h := newHost(t)
	s := h.spec(t, "sleep")
	h.launch(t, s)
	state := h.stateFile(s.ID)
	if err := errors.Join(os.Rename(state, state+"-kept"), os.Mkdir(state, 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.State(t.Context(), s.ID); err == nil || errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("its state: %v; want another error than that it is not found", err)
	}
	if err := errors.Join(os.Remove(state), os.Rename(state+"-kept", state)); err != nil {
		t.Fatal(err)
	}
	h.remove(t, s.ID)
}

// runsc puts a new state in the place of the old one: whoever reads it, also
// after runsc was killed, finds a whole one.
func TestTheStateIsWhole(t *testing.T) {
	h := newHost(t)
	s := h.spec(t, "sleep")
	h.launch(t, s)
	before, err := os.Open(h.stateFile(s.ID))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = before.Close() })
	if err := h.Pause(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	after, err := os.Open(h.stateFile(s.ID))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = after.Close() })
	for file, want := range map[*os.File]runtime.Status{before: runtime.Running, after: runtime.Paused} {
		var state struct{ Status runtime.Status }
		if err := json.NewDecoder(file).Decode(&state); err != nil || state.Status != want {
			t.Errorf("%v, %v; want %s", state, err, want)
		}
	}
	h.remove(t, s.ID)
}
