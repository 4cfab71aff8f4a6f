package guard

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A directory stands for the hierarchy: inotify and the files are the same. The
// processes are real, and so is the connection to containerd's stand-in.

const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// cgroup makes one with a limit and processes, using nothing.
func cgroup(t *testing.T, path, limit string, pids ...int) {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	var procs strings.Builder
	for _, pid := range pids {
		procs.WriteString(strconv.Itoa(pid) + "\n")
	}
	set(t, path+"/cgroup.procs", procs.String())
	set(t, path+"/memory.usage_in_bytes", "0\n")
	set(t, path+"/memory.limit_in_bytes", limit)
}

func set(t *testing.T, file, value string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(value), 0o600); err != nil {
		t.Fatal(err)
	}
}

// program starts a process that has about so many MiB of memory.
func program(t *testing.T, mebibytes int) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("python3", "-c", "import sys\nb = bytearray("+strconv.Itoa(mebibytes)+" << 20)\nfor i in range(0, len(b), 4096): b[i] = 1\nprint('full', flush=True)\nsys.stdin.read()")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	if _, err := io.ReadFull(out, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func alive(cmd *exec.Cmd) bool { return process{pid: cmd.Process.Pid}.size() > 0 }

func killed(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	_ = cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Errorf("the process ended with %s; want killed", cmd.ProcessState)
	}
}

func start(t *testing.T, root string) {
	t.Helper()
	g := New(Config{Memory: root, Log: slog.New(slog.DiscardHandler)})
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
}

// looked returns when the guard has looked at every cgroup once more: it has
// seen two that were made and are over their limits, one after the other.
func looked(t *testing.T, root string) {
	t.Helper()
	for _, name := range []string{"first", "second"} {
		sacrifice := program(t, 1)
		cgroup(t, root+"/"+name, "1\n", sacrifice.Process.Pid)
		set(t, root+"/"+name+"/memory.usage_in_bytes", "2\n")
		killed(t, sacrifice)
		if err := os.RemoveAll(root + "/" + name); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLargestProcessOfACgroupOverItsLimitIsKilled(t *testing.T) {
	root := t.TempDir()
	small, large, other := program(t, 1), program(t, 40), program(t, 80)
	cgroup(t, root+"/free", strconv.FormatInt(unlimited, 10), other.Process.Pid)
	start(t, root)
	cgroup(t, root+"/docker/"+id, "30000000\n", small.Process.Pid, large.Process.Pid) // made afterwards
	set(t, root+"/docker/"+id+"/memory.usage_in_bytes", "30000000\n")
	looked(t, root)
	if !alive(large) {
		t.Fatal("a process was killed below the limit")
	}
	set(t, root+"/docker/"+id+"/memory.usage_in_bytes", "30000001\n")
	killed(t, large)
	set(t, root+"/docker/"+id+"/memory.usage_in_bytes", "1000\n")
	if !alive(small) || !alive(other) {
		t.Error("the smaller process, or one without limit, was killed too")
	}
}

func TestALimitThatIsLoweredBinds(t *testing.T) {
	root := t.TempDir()
	victim := program(t, 1)
	cgroup(t, root+"/a", strconv.FormatInt(unlimited, 10))
	cgroup(t, root+"/a/below", strconv.FormatInt(unlimited, 10), victim.Process.Pid)
	set(t, root+"/a/memory.usage_in_bytes", "5000\n")
	start(t, root)
	looked(t, root)
	if !alive(victim) {
		t.Fatal("killed without a limit")
	}
	set(t, root+"/a/memory.limit_in_bytes", "4096\n") // of the parent
	killed(t, victim)
}

// What goes on using too much is killed one after the other; nothing is left to
// kill in a cgroup whose memory is files.
func TestProcessesAreKilledUntilItIsEnough(t *testing.T) {
	root := t.TempDir()
	a, b := program(t, 1), program(t, 20)
	start(t, root)
	cgroup(t, root+"/a", "1000\n", a.Process.Pid, b.Process.Pid)
	set(t, root+"/a/memory.usage_in_bytes", "2000\n")
	killed(t, b)
	killed(t, a)
}

func TestScoresCount(t *testing.T) {
	large, spared := program(t, 10), program(t, 60)
	worst := func(limit int64) int {
		p, _ := largest([]int{1, os.Getpid(), large.Process.Pid, spared.Process.Pid}, limit)
		return p.pid
	}
	if got := worst(100 << 20); got != spared.Process.Pid {
		t.Errorf("of equals, %d is killed; want the larger one, %d", got, spared.Process.Pid)
	}
	set(t, procFile(large.Process.Pid, "oom_score_adj"), "900")
	if got := worst(100 << 20); got != large.Process.Pid {
		t.Errorf("%d is killed; want %d, which has the higher score", got, large.Process.Pid)
	}
	if _, found := largest([]int{1, os.Getpid()}, 1<<30); found {
		t.Error("PID 1 or the guard itself would be killed")
	}
}

func TestContainerdIsTold(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	requests := make(chan []byte, 1)
	answer := []byte{}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			header := make([]byte, ttrpcHeader)
			if _, err := io.ReadFull(conn, header); err == nil {
				body := make([]byte, binary.BigEndian.Uint32(header))
				_, _ = io.ReadFull(conn, body)
				requests <- append(header, body...)
				binary.BigEndian.PutUint32(header, uint32(len(answer)))
				header[8] = ttrpcResponse
				_, _ = conn.Write(append(header, answer...))
			}
			conn.Close()
		}
	}()
	g := New(Config{Containerd: []string{socket + ".missing", socket}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := g.announce(ctx, id); err != nil {
		t.Fatal(err)
	}
	got := string(<-requests)
	for _, part := range []string{
		"\x00\x00\x00\x01\x01\x00\x0a\x2acontainerd.services.events.ttrpc.v1.Events\x12\x07Forward\x1a",
		"\x12\x04moby\x1a\x0a/tasks/oom\x22", "\x0a\x19containerd.events.TaskOOM\x12\x42\x0a\x40" + id,
	} {
		if !strings.Contains(got, part) {
			t.Errorf("the request %q lacks %q", got, part)
		}
	}
	answer = []byte("\x0a\x08\x08\x03\x12\x04oops") // a status other than OK
	if err := g.announce(ctx, id); err == nil || !strings.Contains(err.Error(), "oops") {
		t.Errorf("a refusal is %v", err)
	}
	<-requests
}

func TestContainerOf(t *testing.T) {
	for path, want := range map[string]string{
		"/docker/" + id: id, "/docker/" + id + "/inner": id, "/some/parent/" + id: id,
		"/": "", "/docker/buildkit/abc": "", "/docker/" + strings.ToUpper(id): "",
	} {
		if got := containerOf(path); got != want {
			t.Errorf("the container of %s is %q; want %q", path, got, want)
		}
	}
}

func TestAGuardWithoutCgroups(t *testing.T) {
	g := New(Config{Memory: filepath.Join(t.TempDir(), "none"), Log: slog.New(slog.DiscardHandler)})
	if err := g.Start(t.Context()); err == nil {
		t.Error("a hierarchy that is not there is watched")
	}
	g.Close()
}

// A container that starts while another one gives back the memory of a killed
// process must not cost that one a second process.
func TestAChangeForgetsNothingOfAKill(t *testing.T) {
	root := t.TempDir()
	cgroup(t, root+"/full", "1000\n")
	tree, err := openTree(root)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.close()
	groups := tree.limited(nil)
	gr := groups[root+"/full"]
	gr.victim, gr.killed, gr.freed, gr.last = process{pid: 1 << 30}, time.Now(), time.Now().Add(time.Hour), 1001
	cgroup(t, root+"/new", "1000\n")
	groups = tree.limited(groups)
	defer closeAll(groups)
	if len(groups) != 2 || !groups[root+"/full"].settles(1001, nil) {
		t.Error("the group does not wait for the memory of what was killed")
	}
}

// gVisor frees the memory of the dead in the background, late on a busy machine:
// the living are not to be killed for it, unless they have too much themselves.
func TestTheLivingArePunishedForNoDead(t *testing.T) {
	lives, other := program(t, 20), program(t, 60)
	pids := []int{lives.Process.Pid}
	gr := &group{path: t.TempDir(), limit: 64 << 20, last: 80 << 20, freed: time.Now().Add(time.Hour)} // never too late
	if !gr.settles(80<<20, pids) {
		t.Error("a process that has less than the limit is killed")
	}
	if gr.settles(80<<20, append(pids, other.Process.Pid)) {
		t.Error("processes that have more than the limit together go on")
	}
	set(t, gr.path+"/memory.stat", "shmem 1\ntotal_shmem "+strconv.Itoa(60<<20)+"\n")
	if gr.settles(80<<20, pids) {
		t.Error("a process that has more than the limit with its files goes on")
	}
}

func TestMemoryThatIsNotFreedCostsALife(t *testing.T) {
	gr := &group{path: t.TempDir(), limit: 64 << 20, freed: time.Now().Add(time.Hour), last: 80 << 20}
	if !gr.settles(80<<20, nil) {
		t.Error("a group is not given time to settle")
	}
	gr.freed = time.Now().Add(-settling)
	if gr.settles(80<<20, nil) {
		t.Error("a group may stay over its limit for ever")
	}
	if !gr.settles(79<<20, nil) {
		t.Error("a group whose memory is being freed is given no more time")
	}
}
