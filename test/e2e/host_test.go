package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/test/census"
)

// hostCPUSeconds is what a sandbox's cgroup has used, on cgroup v1 or v2.
func hostCPUSeconds(t *testing.T, id string) float64 {
	t.Helper()
	if text, err := os.ReadFile("/sys/fs/cgroup/cpuacct/innerdock/" + id + "/cpuacct.usage"); err == nil {
		return number(t, string(text)) / 1e9
	}
	text, err := os.ReadFile("/sys/fs/cgroup/innerdock/" + id + "/cpu.stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "usage_usec ")
	first, _, _ := strings.Cut(rest, "\n")
	return number(t, first) / 1e6
}

func number(t *testing.T, text string) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// testDelay spreads interruptions over the phases of a creation.
func testDelay(i int) time.Duration { return time.Duration(5+i*45) * time.Millisecond }

// waitEmpty waits until nothing is left of any sandbox of the server: the test has it
// to itself meanwhile. A builder would stay for the next build.
func waitEmpty(t *testing.T, s *server) {
	t.Helper()
	if err := s.client.EndBuilder(t.Context()); err != nil {
		t.Error(err)
	}
	eventually(t, func() error {
		left, err := census.Take(t.Context(), s.data())
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("left on the host:\n%s", strings.Join(left, "\n"))
		}
		return err
	})
}

// The server is killed while sandboxes live: they go on, and the next server
// takes them over with their processes, output and Docker.
func TestSandboxesOutliveTheServer(t *testing.T) {
	t.Parallel()
	s := ownServer(t, 221)
	if err := s.seed(t.Context()); err != nil {
		t.Fatal(err)
	}
	sandbox := s.createWithDocker(t, innerdock.SandboxSpec{Name: "survivor"})
	process, err := s.client.StartProcess(t.Context(), sandbox.ID, innerdock.ProcessSpec{
		Args: []string{"sh", "-c", "echo before; read line; echo after $line"}, Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	s.sh(t, "survivor", "docker run -d --name web -p 8080:80 nginx:latest")

	if err := s.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := s.start(t.Context()); err != nil {
		t.Fatal(err)
	}

	began := time.Now()
	s.sh(t, "survivor", "true")
	t.Logf("first exec after the restart: %.0f ms", time.Since(began).Seconds()*1000)
	if err := s.client.WriteStdin(t.Context(), sandbox.ID, process.PID, []byte("the restart\n"), true); err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.WaitProcess(t.Context(), sandbox.ID, process.PID); err != nil {
		t.Fatal(err)
	}
	if out, _, err := s.client.ReadOutput(t.Context(), sandbox.ID, process.PID, "stdout", 0); string(out) != "before\nafter the restart\n" {
		t.Errorf("output %q, %v", out, err)
	}
	if _, err := s.client.WaitDocker(t.Context(), "survivor"); err != nil {
		t.Error(err)
	}
	if got := s.sh(t, "survivor", "docker ps --format '{{.Names}} {{.State}}'; curl -s -o /dev/null -w '%{http_code}' localhost:8080"); got != "web running\n200" {
		t.Errorf("docker says %q", got)
	}
}

// The server is killed in the middle of creations and endings, again and again.
// The next one removes what is left, whatever step it was at.
func TestAKilledServerLeavesNothing(t *testing.T) {
	t.Parallel()
	s := ownServer(t, 222)
	image := s.image(t, python).ID
	for i := range 12 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			sandbox, err := s.client.CreateSandbox(t.Context(), innerdock.SandboxSpec{Image: image})
			if err == nil {
				_, _ = s.client.Terminate(t.Context(), sandbox.ID)
			}
		}()
		timer := time.NewTimer(testDelay(i))
		<-timer.C
		if err := s.signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-done
		if err := s.start(t.Context()); err != nil {
			t.Fatal(err)
		}
		live, err := s.client.Sandboxes(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		for _, sandbox := range live { // killed between "running" and the answer
			if _, err := s.client.Terminate(t.Context(), sandbox.ID); err != nil {
				t.Error(err)
			}
		}
		waitEmpty(t, s)
	}
}

// A server that is started with another pool refuses, and nothing is lost.
func TestAnotherPoolIsRefusedWhileSandboxesLive(t *testing.T) {
	t.Parallel()
	s := ownServer(t, 226)
	sandbox := s.create(t, python, innerdock.SandboxSpec{})
	if err := s.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	pool := s.pool
	s.pool = "10.226.240.0/20"
	if err := s.start(t.Context()); err == nil || !strings.Contains(err.Error(), "--pool") || !strings.Contains(err.Error(), sandbox.ID) {
		t.Errorf("with another pool it starts with %v", err)
	}
	s.pool = pool
	if err := s.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.sh(t, sandbox.ID, "true")
}
