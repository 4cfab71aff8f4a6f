package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
)

func TestBadRequestsAreRefusedAndLeaveNothing(t *testing.T) {
	image := shared.image(t, python).ID
	for name, c := range map[string]struct {
		spec innerdock.SandboxSpec
		code innerdock.Code
		word string
	}{
		"gpu":             {innerdock.SandboxSpec{GPU: "A100"}, innerdock.CodeUnsupported, "gpu"},
		"unknown image":   {innerdock.SandboxSpec{Image: "sha256:" + strings.Repeat("0", 64)}, innerdock.CodeImageNotFound, "image"},
		"image path":      {innerdock.SandboxSpec{Image: "../../etc"}, innerdock.CodeImageNotFound, ""},
		"memory unit":     {innerdock.SandboxSpec{Memory: "4GB!"}, innerdock.CodeInvalid, "memory"},
		"memory tiny":     {innerdock.SandboxSpec{Memory: "1Ki"}, innerdock.CodeInvalid, "memory"},
		"memory huge":     {innerdock.SandboxSpec{Memory: "900Ti"}, innerdock.CodeInvalid, "memory"},
		"cpu negative":    {innerdock.SandboxSpec{CPU: -1}, innerdock.CodeInvalid, "cpu"},
		"cpu huge":        {innerdock.SandboxSpec{CPU: 1e9}, innerdock.CodeInvalid, "cpu"},
		"name":            {innerdock.SandboxSpec{Name: "../x"}, innerdock.CodeInvalid, "name"},
		"profile":         {innerdock.SandboxSpec{Docker: innerdock.DockerSpec{Enabled: true, Profile: "best"}}, innerdock.CodeInvalid, "profile"},
		"ready timeout":   {innerdock.SandboxSpec{Docker: innerdock.DockerSpec{Enabled: true, ReadyTimeout: 1e9}}, innerdock.CodeInvalid, "ready_timeout"},
		"allow":           {innerdock.SandboxSpec{Network: innerdock.NetworkSpec{Allow: []string{"everything"}}}, innerdock.CodeInvalid, "allow"},
		"auto pause":      {innerdock.SandboxSpec{AutoPause: 0.5}, innerdock.CodeInvalid, "auto_pause"},
		"env name":        {innerdock.SandboxSpec{Env: map[string]string{"A=B": "c"}}, innerdock.CodeInvalid, "env"},
		"env far too big": {innerdock.SandboxSpec{Env: map[string]string{"A": strings.Repeat("x", 1<<18)}}, innerdock.CodeTooLarge, "env"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.spec.Image == "" {
				c.spec.Image = image
			}
			before := len(everything(t))
			_, err := shared.client.CreateSandbox(t.Context(), c.spec)
			wantCode(t, err, c.code, c.word)
			if after := len(everything(t)); after != before {
				t.Errorf("%d sandboxes were known before and %d after", before, after)
			}
		})
	}
}

func everything(t *testing.T) []innerdock.Sandbox {
	t.Helper()
	all, err := shared.client.Sandboxes(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestALifeOfASandbox(t *testing.T) {
	sandbox := shared.create(t, python, innerdock.SandboxSpec{
		Name: "life", Env: map[string]string{"GREETING": "good day"},
	})
	if sandbox.State != innerdock.StateRunning || sandbox.Docker.State != innerdock.DockerDisabled || sandbox.Address == "" {
		t.Errorf("created as %+v", sandbox)
	}
	if got := shared.sh(t, "life", "pwd; echo $GREETING; hostname; id -u; cat /proc/1/comm"); got != "/workspace\ngood day\nlife\n0\ninnerdock-agent\n" {
		t.Errorf("inside it is %q", got)
	}
	if got := shared.exec(t, sandbox.ID, "python3.11", "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"); got != (result{"out\n", "err\n", 7}) {
		t.Errorf("got %+v", got)
	}

	spec := innerdock.SandboxSpec{Name: "life", Image: sandbox.Image}
	_, err := shared.client.CreateSandbox(t.Context(), spec)
	wantCode(t, err, innerdock.CodeConflict, "life", sandbox.ID)

	for range 2 { // twice is fine
		ended, err := shared.client.Terminate(t.Context(), sandbox.ID)
		if err != nil || ended.State != innerdock.StateTerminated || ended.EndedAt == nil {
			t.Errorf("terminated as %+v, %v", ended, err)
		}
	}
	shared.noTrace(t, sandbox.ID)
	_, err = shared.client.Exec(t.Context(), sandbox.ID, innerdock.ProcessSpec{Args: []string{"true"}}, innerdock.Streams{})
	wantCode(t, err, innerdock.CodeSandboxTerminated, sandbox.ID)
	if log, err := shared.client.Logs(t.Context(), sandbox.ID); err != nil || !bytes.Contains(log, []byte("sandbox has ended")) {
		t.Errorf("its log is %q, %v", log, err)
	}
	again, err := shared.client.CreateSandbox(t.Context(), spec) // the name is free again
	if err != nil {
		t.Fatal(err)
	}
	if _, err := shared.client.Terminate(t.Context(), "life"); err != nil {
		t.Error(err)
	}
	shared.noTrace(t, again.ID)
}

func TestCommandsThatCannotRun(t *testing.T) {
	t.Parallel()
	sandbox := shared.create(t, python, innerdock.SandboxSpec{})
	for _, c := range []struct {
		spec innerdock.ProcessSpec
		code innerdock.Code
	}{
		{innerdock.ProcessSpec{Args: []string{"no-such-command"}}, innerdock.CodeCommandNotFound},
		{innerdock.ProcessSpec{Args: []string{"/etc/passwd"}}, innerdock.CodeInvalid},
		{innerdock.ProcessSpec{Args: []string{"true"}, Cwd: "/no/such/dir"}, innerdock.CodeInvalid},
		{innerdock.ProcessSpec{}, innerdock.CodeInvalid},
		{innerdock.ProcessSpec{Args: []string{"true"}, Env: map[string]string{"A=B": ""}}, innerdock.CodeInvalid},
	} {
		_, err := shared.client.Exec(t.Context(), sandbox.ID, c.spec, innerdock.Streams{})
		wantCode(t, err, c.code)
	}
	if _, err := shared.client.Process(t.Context(), sandbox.ID, 999999); innerdock.CodeOf(err) != innerdock.CodeNotFound {
		t.Errorf("a process that never was: %v", err)
	}
}

func TestBinaryOutputArrivesAsItIs(t *testing.T) {
	t.Parallel()
	sandbox := shared.create(t, python, innerdock.SandboxSpec{})
	var want bytes.Buffer
	for i := range 1 << 16 {
		want.WriteByte(byte(i * 7))
	}
	got := shared.exec(t, sandbox.ID, "python3", "-c", "import sys; sys.stdout.buffer.write(bytes(i*7%256 for i in range(1<<16)))")
	if sha256.Sum256([]byte(got.stdout)) != sha256.Sum256(want.Bytes()) {
		t.Errorf("%d bytes arrived changed", len(got.stdout))
	}
}

// Who reads it gets all of it; the agent keeps no more than its buffer.
func TestAHundredMegabytesOfOutput(t *testing.T) {
	t.Parallel()
	const total = 100 << 20
	sandbox := shared.create(t, python, innerdock.SandboxSpec{})
	counter, dropped := &byteCounter{}, int64(0)
	process, err := shared.client.Exec(t.Context(), sandbox.ID,
		innerdock.ProcessSpec{Args: []string{"head", "-c", fmt.Sprint(total), "/dev/zero"}},
		innerdock.Streams{Stdout: counter, Dropped: func(_ string, n int64) { dropped += n }})
	if err != nil || *process.ExitCode != 0 {
		t.Fatalf("%+v, %v", process, err)
	}
	if process.Stdout != total || counter.n != total || dropped != 0 {
		t.Errorf("wrote %d; %d arrived and %d were dropped", process.Stdout, counter.n, dropped)
	}
	data, offset, err := shared.client.ReadOutput(t.Context(), sandbox.ID, process.PID, "stdout", 0)
	if err != nil || offset == 0 || offset+int64(len(data)) != total || len(data) > 8<<20 {
		t.Errorf("afterwards %d bytes from offset %d, %v", len(data), offset, err)
	}
}

type byteCounter struct{ n int64 }

func (c *byteCounter) Write(p []byte) (int, error) { c.n += int64(len(p)); return len(p), nil }

func TestTheCPULimitBinds(t *testing.T) {
	sandbox := shared.create(t, python, innerdock.SandboxSpec{CPU: 0.5})
	got := shared.sh(t, sandbox.ID, `python3 -c '
import time
wall, cpu = time.time(), time.process_time()
while time.time() - wall < 3: pass
print((time.process_time() - cpu))'`)
	host := hostCPUSeconds(t, sandbox.ID)
	if host > 3.5 {
		t.Errorf("with half a core the sandbox used %.1f s of the host's CPU in about 3 s (the guest counts %s)", host, got)
	}
}

// A sandbox whose first process is killed from inside has failed, not hung.
func TestKillingPID1EndsTheSandbox(t *testing.T) {
	t.Parallel()
	sandbox := shared.create(t, python, innerdock.SandboxSpec{})
	_, _ = shared.client.Exec(t.Context(), sandbox.ID,
		innerdock.ProcessSpec{Args: []string{"python3", "-c", "import os, signal; os.kill(1, signal.SIGTERM); os.kill(1, signal.SIGKILL)"}}, innerdock.Streams{})
	ended, err := shared.client.Wait(t.Context(), sandbox.ID)
	if err != nil || !ended.State.Ended() {
		t.Fatalf("%+v, %v", ended, err)
	}
	shared.noTrace(t, sandbox.ID)
}

// It is given up at every stage, and most often about when the reply is on its way.
func TestACreationThatIsCancelledLeavesNothing(t *testing.T) {
	spec := innerdock.SandboxSpec{Image: shared.image(t, python).ID}
	create := func(within time.Duration) bool {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		sandbox, err := shared.client.CreateSandbox(ctx, spec)
		if err != nil {
			return false
		}
		if _, err := shared.client.Terminate(t.Context(), sandbox.ID); err != nil {
			t.Error(err)
		}
		return true
	}
	for i := range 8 {
		create(testDelay(i))
	}
	started := time.Now()
	sandbox, err := shared.client.CreateSandbox(t.Context(), spec)
	edge := time.Since(started)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := shared.client.Terminate(t.Context(), sandbox.ID); err != nil {
		t.Error(err)
	}
	for range 16 {
		if create(edge) {
			edge -= 2 * time.Millisecond
		} else {
			edge += time.Millisecond
		}
	}
	waitEmpty(t, shared)
}

// An open that waits for the other end of a FIFO goes on after a signal whose
// handler wants that. runc waits so in every container that starts.
func TestOpenOfAFIFOIsRestarted(t *testing.T) {
	t.Parallel()
	got := shared.sh(t, shared.create(t, python, innerdock.SandboxSpec{}).ID, `python3 -c '
import ctypes, os, signal, threading
os.mkfifo("/tmp/fifo")
came, wake = os.pipe()
os.set_blocking(wake, False)
signal.set_wakeup_fd(wake)
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, False)
def read():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    for _ in range(3):
        os.read(came, 1)
    os.open("/tmp/fifo", os.O_RDONLY)
threading.Thread(target=read, daemon=True).start()
libc = ctypes.CDLL(None, use_errno=True)
signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
opened = libc.open(b"/tmp/fifo", os.O_WRONLY)
print("opened" if opened >= 0 else os.strerror(ctypes.get_errno()))'`)
	if got != "opened\n" {
		t.Errorf("opening a FIFO that signals interrupt: %q", got)
	}
}
