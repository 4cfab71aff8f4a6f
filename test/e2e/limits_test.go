package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
)

// eat is a program that doubles a string until it has 128 MiB of it, for which it
// needs twice as much, and ends at once.
const eat = `awk 'BEGIN { s = "x"; while (length(s) < 134217728) s = s s }'`

// quoted is one word of a shell.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// inspected is what `docker inspect` shows of how a container is.
func inspected(t *testing.T, id, container string) string {
	t.Helper()
	return strings.TrimSpace(shared.sh(t, id, "docker inspect --format '{{.State.OOMKilled}} {{.State.ExitCode}} {{.State.Running}}' "+container))
}

func TestMemoryLimitsOfContainersBind(t *testing.T) {
	t.Parallel()
	id := shared.createWithDocker(t, innerdock.SandboxSpec{CPU: 2, Memory: "2Gi"}).ID
	shared.sh(t, id, "docker pull -q busybox:latest")
	for i := range 5 {
		got := shared.exec(t, id, "sh", "-c", fmt.Sprintf("docker run --name fast%d --memory 64m busybox:latest %s", i, eat))
		if state := inspected(t, id, fmt.Sprintf("fast%d", i)); got.code != 137 || state != "true 137 false" {
			t.Errorf("a container that takes 256 of 64 MiB ends with %d as %q: %s", got.code, state, got.stderr)
		}
	}
	if got := shared.sh(t, id, "docker run --name enough --memory 500m busybox:latest "+eat+" && echo lives"); got != "lives\n" {
		t.Errorf("a container that takes 256 of 500 MiB says %q", got)
	}
	// The largest process dies, not the container, unless it is the container's
	// first.
	shared.sh(t, id, "docker run -d --name parent --memory 64m busybox:latest sh -c "+quoted(eat+"; echo $?; sleep 1000")+"; until docker logs parent | grep -q 137; do sleep 0.1; done")
	if state := inspected(t, id, "parent"); state != "true 0 true" {
		t.Errorf("a container that lost a process is %q", state)
	}
	// Files that are read and written are no memory that a limit is for.
	if got := shared.sh(t, id, "docker run --rm --memory 64m busybox:latest sh -c 'dd if=/dev/zero of=/big bs=1M count=200 2>/dev/null; wc -c </big'"); got != "209715200\n" {
		t.Errorf("a container that works on a large file says %q", got)
	}
	// The same by docker update, by a cgroup parent with a limit, and by Compose.
	shared.sh(t, id, "docker run -d --name updated busybox:latest sh -c "+quoted("until [ -e /go ]; do sleep 0.1; done; exec "+eat)+" && docker update --memory 64m updated && docker exec updated touch /go && docker wait updated")
	if state := inspected(t, id, "updated"); state != "true 137 false" {
		t.Errorf("a container whose limit came later is %q", state)
	}
	shared.sh(t, id, "mkdir /sys/fs/cgroup/memory/team && echo 64M | numfmt --from=iec > /sys/fs/cgroup/memory/team/memory.limit_in_bytes")
	shared.exec(t, id, "sh", "-c", "docker run --name member --cgroup-parent /team busybox:latest "+eat)
	if state := inspected(t, id, "member"); state != "true 137 false" {
		t.Errorf("a container below a limited cgroup is %q", state)
	}
	shared.sh(t, id, "mkdir -p /workspace/app && cd /workspace/app && printf '%s\n' "+quoted(`services:
  hungry: {image: "busybox:latest", command: ["awk", 'BEGIN { s = "x"; while (length(s) < 134217728) s = s s }'], mem_limit: 64m, cpus: 0.5, container_name: hungry}`)+
		" > compose.yaml && docker compose up -d && docker wait hungry")
	if state := inspected(t, id, "hungry"); state != "true 137 false" {
		t.Errorf("a service that takes more than its mem_limit is %q", state)
	}
	if got := shared.sh(t, id, "docker events --since 10m --until 0s --filter event=oom --format '{{.Actor.Attributes.name}}'"); !strings.Contains(got, "fast4\nparent\nupdated\n") {
		t.Errorf("the events of memory that ran out are of %q", got)
	}
}

func TestPIDLimitsOfContainersBind(t *testing.T) {
	t.Parallel()
	id := shared.createWithDocker(t, innerdock.SandboxSpec{CPU: 2, Memory: "1Gi"}).ID
	shared.sh(t, id, "docker run -d --name neighbour busybox:latest sleep 1000")
	got := shared.exec(t, id, "sh", "-c", "docker run --rm --pids-limit 64 busybox:latest sh -c 'i=0; while [ $i -lt 200 ]; do sleep 100 & i=$((i+1)); done; echo all of them'")
	if got.code == 0 || strings.Contains(got.stdout, "all of them") || !strings.Contains(got.stderr, "fork") {
		t.Errorf("200 processes in a container of 64: %+v", got)
	}
	// Exactly: the shell and nine more, three containers at a time.
	counted := shared.sh(t, id, `for i in 1 2 3 4 5; do for j in a b c; do
docker run --rm --pids-limit 10 busybox:latest sh -c 'echo first; i=0; while [ $i -lt 30 ]; do sleep 1000 & i=$((i+1)); echo next; done' 2>/dev/null | wc -l &
done; wait; done`)
	if want := strings.Repeat("10\n", 15); counted != want {
		t.Errorf("containers of 10 processes had %q", counted)
	}
	shared.sh(t, id, "docker exec neighbour true")
	manyThreads(t, id, 1<<30) // not bound by RLIMIT_NPROC here
}

// manyThreads starts threads until the sandbox's limit, which its memory sets,
// and sees that nothing else suffers.
func manyThreads(t *testing.T, id string, memory int) {
	t.Helper()
	most := memory / (384 << 10)
	got := shared.sh(t, id, fmt.Sprintf(`python3 -c '
import threading
threading.stack_size(65536)
end, n = threading.Event(), 0
try:
    while n < %d:
        threading.Thread(target=end.wait).start()
        n += 1
except RuntimeError: pass
end.set()
print(n)'`, most+100))
	var n int
	if _, err := fmt.Sscan(got, &n); err != nil || n >= most || n < most*8/10 {
		t.Errorf("%q threads could be started; want up to %d", got, most)
	}
	shared.sh(t, id, "true")
}

func TestTasksOfASandboxAreLimited(t *testing.T) {
	t.Parallel()
	manyThreads(t, shared.create(t, python, innerdock.SandboxSpec{Memory: "256Mi"}).ID, 256<<20)
}

// A process that takes all memory dies, and its sandbox lives: where the machine is
// busy, if the last of it is not taken faster than anybody can look.
func TestOutOfMemoryEndsTheProcess(t *testing.T) {
	sandbox := shared.create(t, python, innerdock.SandboxSpec{Memory: "1Gi"})
	got := shared.exec(t, sandbox.ID, "python3", "-c", `
import time
b = bytearray(2 << 30)
for i in range(0, len(b), 4096):
    b[i] = 1
    if i > 800 << 20 and i % (1 << 20) == 0: time.sleep(0.025)`)
	if got.code != 137 {
		t.Errorf("a process that takes 2 of 1 GiB ends as %+v", got)
	}
	shared.sh(t, sandbox.ID, "true")
	eventually(t, func() error {
		log, err := shared.client.Logs(t.Context(), sandbox.ID)
		if err == nil && !strings.Contains(string(log), "its largest process was killed") {
			err = fmt.Errorf("its log is %s", log)
		}
		return err
	})
}

// Memory that belongs to no process ends the sandbox, which says why, and no other.
func TestOutOfMemoryEndsThatSandboxAndSaysWhy(t *testing.T) {
	neighbour := shared.create(t, python, innerdock.SandboxSpec{})
	sandbox := shared.create(t, python, innerdock.SandboxSpec{Memory: "256Mi"})
	for range 60 { // 5 MiB each, until it is over
		_, err := shared.client.Exec(t.Context(), sandbox.ID, innerdock.ProcessSpec{Args: []string{"python3", "-c", `
import ctypes
c = ctypes.CDLL(None)
c.shmat.restype = ctypes.c_void_p
p = c.shmat(c.shmget(0, 5 << 20, 0o1600), None, 0)
ctypes.memset(p, 1, 5 << 20)`}}, innerdock.Streams{})
		if err != nil {
			break
		}
	}
	ended, err := shared.client.Wait(limited(t), sandbox.ID)
	if err != nil || ended.State != innerdock.StateFailed || !strings.Contains(ended.Reason, "memory") {
		t.Fatalf("%+v, %v", ended, err)
	}
	shared.noTrace(t, sandbox.ID)
	shared.sh(t, neighbour.ID, "true")
}

// What is written to the root, to /tmp and by Docker has one limit, and ends there
// with an error that programs understand.
func TestTheDiskLimitBinds(t *testing.T) {
	t.Parallel()
	sandbox := shared.createWithDocker(t, innerdock.SandboxSpec{Disk: "128Mi", Memory: "2Gi", CPU: 2})
	full := func(command string) {
		t.Helper()
		if got := shared.exec(t, sandbox.ID, "sh", "-c", command); got.code == 0 || !strings.Contains(got.stderr, "No space left on device") {
			t.Errorf("%s: %+v", command, got)
		}
	}
	full("dd if=/dev/zero of=/big bs=1M count=200; code=$?; rm /big; exit $code")
	full("dd if=/dev/zero of=/tmp/big bs=1M count=200; code=$?; rm /tmp/big; exit $code")
	full("docker run --rm busybox:latest dd if=/dev/zero of=/big bs=1M count=200")
	shared.sh(t, sandbox.ID, "dd if=/dev/zero of=/big bs=1M count=80")
	full("dd if=/dev/zero of=/tmp/big bs=1M count=80; code=$?; rm /tmp/big; exit $code")
	full("docker run --rm busybox:latest dd if=/dev/zero of=/big bs=1M count=80")
	shared.sh(t, sandbox.ID, `test "$(df -k --output=avail / | tail -n 1)" -lt 50000; rm /big`)
	shared.sh(t, sandbox.ID, "docker run --rm busybox:latest dd if=/dev/zero of=/big bs=1M count=80") // it can be used again
}

// A sandbox that has more on the host's disk than it may, whatever gVisor thinks
// of it, ends and says why.
func TestTheHostCountsDisksToo(t *testing.T) {
	neighbour := shared.create(t, python, innerdock.SandboxSpec{})
	sandbox := shared.createWithDocker(t, innerdock.SandboxSpec{Disk: "128Mi"})
	files, err := filepath.Glob(filepath.Join(shared.data(), "sandboxes", sandbox.ID, "docker", ".gvisor.filestore.*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("the files behind Docker's data are %q, %v", files, err)
	}
	file, err := os.OpenFile(files[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	err = unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_KEEP_SIZE, 1<<40, 256<<20) // where gVisor does not look
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	ended, err := shared.client.Wait(limited(t), sandbox.ID)
	if err != nil || ended.State != innerdock.StateFailed || !strings.Contains(ended.Reason, "disk is full") {
		t.Fatalf("%+v, %v", ended, err)
	}
	shared.noTrace(t, sandbox.ID)
	shared.sh(t, neighbour.ID, "true")
}

// A sandbox that is under every kind of pressure at once leaves its neighbour
// and the API answering.
func TestPressureStaysInItsSandbox(t *testing.T) {
	neighbour := shared.create(t, python, innerdock.SandboxSpec{})
	sandbox := shared.create(t, python, innerdock.SandboxSpec{Memory: "256Mi", Disk: "128Mi", CPU: 0.5})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = shared.client.Exec(ctx, sandbox.ID, innerdock.ProcessSpec{Args: []string{"sh", "-c",
			`(while :; do dd if=/dev/zero of=/big bs=1M; done) & (while :; do dd if=/dev/zero of=/dev/shm/big bs=1M; done) &
			i=0; while :; do i=$((i+1)); : > /tmp/$i; sleep 1000 & done`}}, innerdock.Streams{})
	}()
	for range 20 {
		shared.sh(t, neighbour.ID, "echo > /tmp/x; true")
		if _, err := shared.client.Sandboxes(t.Context(), false); err != nil {
			t.Error(err)
		}
	}
	cancel()
	<-done
	if _, err := shared.client.Terminate(t.Context(), sandbox.ID); err != nil {
		t.Error(err)
	}
	shared.noTrace(t, sandbox.ID)
}

// limited is a context in which what is to happen has to happen.
func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
