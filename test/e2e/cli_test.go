package e2e

import (
	"bufio"
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
)

func TestRunPassesOutputAndExitCodeThrough(t *testing.T) {
	got := shared.cli(t, nil, "run", "python3.11", "--", "python3", "-c", "print('hi'); raise SystemExit(42)")
	if got.stdout != "hi\n" || got.code != 42 {
		t.Errorf("%+v", got)
	}
	if got := shared.cli(t, nil, "run", "python3.11", "--", "no-such-command"); got.code != 127 {
		t.Errorf("%+v", got)
	}
	waitEmpty(t, shared)
}

func TestRunWithDocker(t *testing.T) {
	got := shared.cli(t, nil, "run", "--docker", "python3.11", "--", "docker", "run", "hello-world")
	if got.code != 0 || !strings.Contains(got.stdout, "Hello from Docker!") {
		t.Errorf("%+v", got)
	}
	waitEmpty(t, shared)
}

// Ctrl-C in the middle of a run, at several moments, ends the sandbox.
func TestInterruptedRunsLeaveNothing(t *testing.T) {
	shared.image(t, python)
	for i := range 4 {
		cmd := shared.command(t.Context(), "run", "python3.11", "--", "sleep", "1000")
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(stderr).ReadString('\n'); err != nil || !strings.Contains(line, "sandbox") {
			t.Fatalf("it begins with %q, %v", line, err)
		}
		timer := time.NewTimer(testDelay(i * 4))
		<-timer.C
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 130 {
			t.Errorf("interrupted, it ended with code %d", code)
		}
		waitEmpty(t, shared)
	}
}

func TestTheVerbs(t *testing.T) {
	image := shared.image(t, python).ID
	id := strings.TrimSpace(shared.cli(t, nil, "create", "--name", "verbs", "-q", image).stdout)
	if id == "" {
		t.Fatal("create -q printed no ID")
	}
	var listed struct{ Sandboxes []innerdock.Sandbox }
	text := shared.cli(t, nil, "ls", "-o", "json").stdout
	if err := json.Unmarshal([]byte(text), &listed.Sandboxes); err != nil {
		if err := json.Unmarshal([]byte(text), &listed); err != nil {
			t.Fatalf("ls -o json: %v\n%s", err, text)
		}
	}
	if len(listed.Sandboxes) != 1 || listed.Sandboxes[0].Name != "verbs" {
		t.Errorf("ls: %+v", listed)
	}
	if got := shared.cli(t, strings.NewReader("from stdin"), "exec", "-i", "verbs", "--", "cat"); got.stdout != "from stdin" || got.code != 0 {
		t.Errorf("exec -i: %+v", got)
	}
	if got := shared.cli(t, nil, "logs", "verbs"); !strings.Contains(got.stdout, "sandbox is running") {
		t.Errorf("logs: %+v", got)
	}
	if got := shared.cli(t, nil, "inspect", "verbs"); !strings.Contains(got.stdout, id) {
		t.Errorf("inspect: %+v", got)
	}
	for range 2 {
		if got := shared.cli(t, nil, "rm", id); got.code != 0 {
			t.Errorf("rm: %+v", got)
		}
	}
	if got := shared.cli(t, nil, "exec", "nosuch", "--", "true"); got.code != 125 || !strings.Contains(got.stderr, "nosuch") {
		t.Errorf("exec in no sandbox: %+v", got)
	}
	waitEmpty(t, shared)
}
