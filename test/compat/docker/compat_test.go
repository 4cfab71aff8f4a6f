package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/test/census"
	"github.com/innerdock/innerdock/test/freepool"
)

const atOnce = 3

// TestFull holds profile full to what it is said to do: every check passes, but
// for those that are listed as different from native Docker. `make compat` runs
// the same with more versions, and natively.
func TestFull(t *testing.T) {
	checks, err := Checks()
	if err != nil {
		t.Fatal(err)
	}
	s := startServer(t)
	image, err := s.client.BuildImage(t.Context(), Definition, nil)
	if err != nil {
		t.Fatal(err)
	}
	kit, err := NewKit(t.Context(), filepath.Join(s.images, "seed"))
	if err != nil {
		t.Fatal(err)
	}
	place, err := NewSandbox(t.Context(), s.client, image.ID, innerdock.ProfileFull)
	if err != nil {
		t.Fatal(err)
	}
	facts, err := Prepare(t.Context(), place, kit)
	if err != nil {
		t.Fatal(err)
	}
	if !facts.Compose || !facts.Buildx {
		t.Fatalf("with_docker() gives %+v", facts)
	}
	began := time.Now()
	passed := 0
	known := func(c Check) bool { return c.Expected("full", Default) != "" }
	_, err = Run(t.Context(), place, facts, checks, atOnce, known, func(c Check, r Result) {
		if r.Outcome == Passed {
			passed++
		}
		if r.Again {
			t.Logf("%s/%s failed at first:\n%s", c.Area, c.Name, r.Output)
		}
		if what := c.Unexpected("full", Default, r); what != "" {
			t.Errorf("%s/%s (%s): %s", c.Area, c.Name, c.Title, what)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("Docker %s: %d of %d checks pass in %.0f s", facts.Version, passed, len(checks), time.Since(began).Seconds())
	if t.Failed() {
		log, _ := place.Log(t.Context())
		t.Logf("the end of dockerd's log: %s", log[max(0, len(log)-4096):])
	}
}

// server is bin/innerdock for one test.
type server struct {
	client *innerdock.Client
	images string
}

func startServer(t *testing.T) server {
	t.Helper()
	const binary = "../../../bin/innerdock"
	if _, err := os.Stat(binary); err != nil {
		t.Fatal("no bin/innerdock; run `make build` first, or the tests by `make test`")
	}
	runsc, err := exec.CommandContext(t.Context(), "../../../tools/runsc/build.sh").Output()
	if err != nil {
		t.Fatal(err)
	}
	pool, err := freepool.In(232)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/var/tmp", "idk-")
	if err != nil {
		t.Fatal(err)
	}
	s := server{images: filepath.Join(cacheDir(t), "images")}
	socket, data := filepath.Join(dir, "api.sock"), filepath.Join(dir, "data")
	var log bytes.Buffer
	cmd := exec.Command(binary, "server", "--data", data, "--socket", socket, "--images", s.images,
		"--runsc", strings.TrimSpace(string(runsc)), "--pool", pool.String())
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if s.client, err = innerdock.New("unix://"+socket, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		live, err := s.client.Sandboxes(ctx, false)
		for _, sandbox := range live {
			_, failure := s.client.Terminate(ctx, sandbox.ID)
			err = errors.Join(err, failure)
		}
		s.client.Close()
		err = errors.Join(err, cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())
		left, failure := census.Take(ctx, data)
		if len(left) > 0 {
			failure = errors.Join(failure, fmt.Errorf("left on the host: %s", left))
		}
		if err := errors.Join(err, failure, os.RemoveAll(dir)); err != nil {
			t.Errorf("%v; the server's log:\n%s", err, log.String())
		}
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if _, err = s.client.Version(t.Context()); err == nil {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server does not answer: %v", err)
		}
	}
}

// cacheDir is where the project's scripts cache what takes long to make.
func cacheDir(t *testing.T) string {
	if dir := os.Getenv("INNERDOCK_CACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "innerdock")
}

// The list of checks is long, and each says what it is about.
func TestChecks(t *testing.T) {
	checks, err := Checks()
	if err != nil {
		t.Fatal(err)
	}
	if len(checks) < 150 {
		t.Errorf("there are %d checks", len(checks))
	}
	for _, c := range checks {
		if strings.TrimSpace(c.Body) == "" {
			t.Errorf("%s/%s has no body", c.Area, c.Name)
		}
		for key, reason := range c.Differs {
			if len(reason) < 20 {
				t.Errorf("%s/%s differs in %s: %q is no reason", c.Area, c.Name, key, reason)
			}
		}
	}
}

// What a result says against the list.
func TestUnexpected(t *testing.T) {
	checks, err := parse("area", "#@ one: it works\ntrue\n#@ two: it does not\n#@ alone\n#@ seconds 5\n#@ differs full: shared\n#@ differs minimal: a reason of its own\n#@ differs full@29: another reason\nfalse\n",
		map[string]string{"shared": "a reason of many"})
	if err != nil {
		t.Fatal(err)
	}
	one, two := checks[0], checks[1]
	if one.Body != "true\n" || two.Body != "false\n" || !two.Alone || two.Limit != 5*time.Second || one.Limit != defaultLimit {
		t.Errorf("%+v", checks)
	}
	passed, failed := Result{Outcome: Passed}, Result{Outcome: Failed, Output: "why"}
	for _, c := range []struct {
		check            Check
		profile, version string
		result           Result
		says             string // "" for nothing
	}{
		{one, "full", "26.1", passed, ""},
		{one, "full", "26.1", failed, "why"},
		{one, "minimal", "26.1", failed, "why"},
		{two, "full", "26.1", failed, ""},
		{two, "full", "26.1", passed, "a reason of many"},
		{two, "full", "29", passed, "another reason"},
		{two, "minimal", "29", failed, ""},
		{two, "minimal", "29", passed, ""},
		{two, "full", "26.1", Result{Outcome: NotApplicable}, ""},
	} {
		got := c.check.Unexpected(c.profile, c.version, c.result)
		if (c.says == "") != (got == "") || !strings.Contains(got, c.says) {
			t.Errorf("%s in %s with %s, %s: %q, want %q", c.check.Name, c.profile, c.version, c.result.Outcome, got, c.says)
		}
	}
	for _, wrong := range []string{"true\n#@ alone\n", "#@ one: x\n#@ unknown\n", "#@ one: x\n#@ seconds many\n", "#@ one: x\n#@ differs elsewhere: y\n"} {
		if _, err := parse("area", wrong, nil); err == nil {
			t.Errorf("%q is accepted", wrong)
		}
	}
}

func TestNeeds(t *testing.T) {
	old, today := Facts{Version: "20.10.24+dfsg1"}, Facts{Version: "26.1.5", Compose: true, Buildx: true}
	for need, want := range map[string][2]bool{
		"compose": {false, true}, "buildx": {false, true}, "docker >= 23": {false, true}, "docker >= 20.10": {true, true}, "docker >= 26.0": {false, true},
	} {
		if got := [2]bool{old.offers([]string{need}), today.offers([]string{need})}; got != want {
			t.Errorf("%s: %v, want %v", need, got, want)
		}
	}
}
