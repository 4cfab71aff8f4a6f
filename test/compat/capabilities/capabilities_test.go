// Package capabilities finds out what Docker needs each of a sandbox's 17
// capabilities for: it takes them away one by one and tries what users do.
package capabilities

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/runtime"
)

// atOnce sandboxes are tried at a time, each for no longer than trialTime and
// each check no longer than checkTime.
const (
	atOnce    = 2
	trialTime = 4 * time.Minute
	checkTime = 40 * time.Second
)

var update = flag.Bool("update", false, "write the table to docs/reference/capabilities.md")

// check is something that users do, as a line of shell that must succeed.
type check struct{ name, line string }

var checks = []check{
	{"run", "docker run --rm hello-world"},
	{"run on the host network", "docker run --rm --network host hello-world"},
	{"publish a port", "docker run -d --name web -p 8080:80 busybox httpd -f -h /etc && curl -fsS --retry 20 --retry-delay 1 --retry-all-errors -o /dev/null http://localhost:8080/passwd"},
	{"exec", "docker run -d --name box busybox sleep 1000 && docker exec box true"},
	{"stop another user's", "docker run -d --name other --user 1000 --init busybox sleep 1000 && docker stop -t 5 other && docker rm other"},
	{"build", `mkdir -p /tmp/b && printf 'FROM busybox\nRUN touch /f && chown 1000:1000 /f && chmod u+s /f\nUSER 1000\nRUN id -u > /tmp/id\n' > /tmp/b/Dockerfile && docker build -q -t built /tmp/b`},
	{"run as a user", "docker run --rm --user 1000:1000 busybox sh -c 'test $(id -u) = 1000'"},
	{"volume", "docker volume create data && docker run --rm -v data:/v busybox sh -c 'echo x > /v/x && chown 5:5 /v/x && chmod 600 /v/x' && docker run --rm -v data:/v busybox cat /v/x"},
	{"device node", "docker run --rm busybox mknod /n c 1 3"},
	{"ping", "docker run --rm busybox ping -c 1 -W 2 127.0.0.1"},
	{"chroot", "docker run --rm busybox chroot / true"},
	{"port below 1024", "docker run --rm busybox sh -c 'nc -l -p 80 & sleep 0.3; kill $!'"},
	{"copy", "docker cp box:/etc/hostname /tmp/h && docker cp /tmp/h box:/tmp/h"},
	{"package's file rights", "touch /var/c && python3 -c \"import os,struct; os.setxattr('/var/c', 'security.capability', struct.pack('<5I', 0x2000001, 1<<13, 0, 0, 0))\""},
	{"trace", "docker run --rm --cap-add SYS_PTRACE busybox true"},
}

// trial is a sandbox without one capability ("" for none missing).
type trial struct {
	capability string
	ready      string          // why Docker did not become ready; "" if it did
	failed     map[string]bool // by the check's name
	detail     []string
}

func TestWhatDockerNeeds(t *testing.T) {
	s := newStack(t)
	trials := []*trial{{}}
	for _, c := range runtime.Capabilities(true) {
		trials = append(trials, &trial{capability: c})
	}
	turns := make(chan struct{}, atOnce)
	var running sync.WaitGroup
	for _, one := range trials {
		running.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			s.try(t, one)
		})
	}
	running.Wait()

	for _, one := range trials {
		t.Logf("without %q: %s", one.capability, strings.Join(one.detail, "\n\t"))
	}
	if with := trials[0]; with.ready != "" || len(with.failed) > 0 {
		t.Fatalf("Docker does not work with all 17 capabilities; without one of them it cannot tell anything:\n%s\n%s", with.ready, strings.Join(with.detail, "\n"))
	}
	table := report(trials[1:])
	t.Log("\n" + table)
	if *update {
		writeReference(t, trials[1:])
	}
}

// try creates a sandbox and runs the checks. It does not fail the test: what
// does not work is the result.
func (s *stack) try(t *testing.T, one *trial) {
	ctx, cancel := context.WithTimeout(t.Context(), trialTime)
	defer cancel()
	one.failed = map[string]bool{}
	sandbox, err := s.create(ctx, one.capability)
	if err != nil {
		one.ready = err.Error()
		return
	}
	defer func() {
		if _, err := s.client.Terminate(context.WithoutCancel(ctx), sandbox.ID); err != nil {
			t.Errorf("terminating the sandbox without %q: %v", one.capability, err)
		}
	}()
	if _, err := s.client.WaitDocker(ctx, sandbox.ID); err != nil {
		one.ready = err.Error()
		one.detail = append(one.detail, one.ready)
		return
	}
	for _, c := range checks {
		if output, ok := s.sh(ctx, sandbox.ID, c.line); !ok {
			one.failed[c.name] = true
			one.detail = append(one.detail, c.name+": "+strings.TrimSpace(output))
		}
	}
}

// sh runs a line of shell in a sandbox; its output explains a failure.
func (s *stack) sh(ctx context.Context, id, line string) (output string, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	var out bytes.Buffer
	process, err := s.client.Exec(ctx, id, innerdock.ProcessSpec{Args: []string{"sh", "-c", line}}, innerdock.Streams{Stdout: &out, Stderr: &out})
	if err != nil {
		return out.String() + err.Error(), false
	}
	return out.String(), process.ExitCode != nil && *process.ExitCode == 0
}

// verdict says what fails without a capability.
func (one *trial) verdict() string {
	if one.ready != "" {
		return "dockerd does not start"
	}
	var broken []string
	for _, c := range checks {
		if one.failed[c.name] {
			broken = append(broken, c.name)
		}
	}
	switch {
	case len(broken) == 0:
		return "nothing of what was tried"
	case one.failed["run"] && one.failed["run on the host network"]:
		return "no container starts: it is one of Docker's default set, or runc needs it"
	}
	return strings.Join(broken, ", ")
}

func report(trials []*trial) string {
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "WITHOUT\tFAILS")
	for _, one := range trials {
		fmt.Fprintf(table, "%s\t%s\n", one.capability, one.verdict())
	}
	_ = table.Flush() // into memory
	return text.String()
}

func writeReference(t *testing.T, trials []*trial) {
	t.Helper()
	names := make([]string, 0, len(checks))
	for _, c := range checks {
		names = append(names, c.name)
	}
	slices.Sort(names)
	var text strings.Builder
	fmt.Fprintf(&text, "# What Docker needs each capability for\n\n"+
		"A sandbox with Docker has 17 capabilities, inside gVisor only; none is one on the host. `go test ./test/compat/capabilities -update`\n"+
		"takes each away in turn, tries what users do (dockerd starts; %s), and writes this table.\n\n"+
		"| without | what fails |\n|---|---|\n", strings.Join(names, "; "))
	for _, one := range trials {
		fmt.Fprintf(&text, "| `%s` | %s |\n", one.capability, one.verdict())
	}
	path := filepath.Join("..", "..", "..", "docs", "reference", "capabilities.md")
	if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
