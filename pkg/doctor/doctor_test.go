package doctor

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/innerdock/innerdock/pkg/network"
	"github.com/innerdock/innerdock/pkg/runtime/runtimetest"
)

func TestThisMachine(t *testing.T) {
	checks := Run(t.Context(), Options{
		Data:  filepath.Join(t.TempDir(), "not", "yet"),
		Runsc: runtimetest.Runsc(t),
		Pool:  netip.MustParsePrefix("10.219.128.0/20"),
	})
	for _, check := range checks {
		t.Logf("%-20s %-4s %s %s", check.Name, check.Status, check.Detail, check.Fix)
		if check.Status == Fail {
			t.Errorf("%s failed here: %s", check.Name, check.Detail)
		}
		if check.Name == "" || check.Detail == "" || (check.Status == OK) != (check.Fix == "") || strings.Contains(check.Detail, "\n") {
			t.Errorf("%+v is not one line, with a fix exactly if there is something to mend", check)
		}
	}
	if !Healthy(checks) {
		t.Error("not healthy")
	}
}

// script writes an executable that stands for a runsc in trouble.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "runsc")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestTroubles breaks one thing at a time and wants it named, with a fix.
func TestTroubles(t *testing.T) {
	proc := t.TempDir()
	write(t, filepath.Join(proc, "sys/kernel/osrelease"), "4.19.0-amd64\n")
	write(t, filepath.Join(proc, "self/status"), "Name:\tx\nCapEff:\t0000000000000000\n")
	unified := t.TempDir()
	write(t, filepath.Join(unified, "cgroup.controllers"), "cpuset cpu io memory\n")
	legacy := t.TempDir()
	write(t, filepath.Join(legacy, "cpu/cgroup.procs"), "")
	here := thisMachine()

	tests := []struct {
		name   string
		check  func(context.Context) Check
		status Status
		words  string
	}{
		{"not root", machine{uid: 1000}.root, Fail, "user 1000"},
		{"old kernel", machine{proc: proc}.kernel, Fail, "4.19.0-amd64 is older"},
		{"no proc", machine{proc: "/nowhere"}.kernel, Fail, "/nowhere"},
		{"no capability", machine{proc: proc}.limits, Warn, ""},
		{"cgroup 2 without pids", machine{cgroups: unified}.cgroup, Fail, "version 2 without pids"},
		{"cgroup 1 in part", machine{cgroups: legacy}.cgroup, Fail, "version 1 without memory, pids"},
		{"no cgroups", machine{cgroups: "/nowhere"}.cgroup, Fail, "version 1 without cpu"},
		{"no runsc", runscVersion("/nowhere/runsc"), Fail, "/nowhere/runsc"},
		{"old runsc", runscVersion(script(t, "echo runsc version release-20250101.0")), Fail, "CVE-2026-96812"},
		{"nameless runsc", runscVersion(script(t, "echo runsc version HEAD")), Fail, "no date"},
		{"broken platform", here.platform(script(t, "echo first; echo no such platform >&2; exit 1")), Fail, "no such platform"},
		{"no disk", disk("/dev/null/x"), Fail, "/dev/null"},
		{"memory as disk", disk("/dev/shm/x/y"), Warn, "tmpfs"},
		{"no runsc at all", runscVersion(""), Fail, "neither"},
		{"no platform", here.platform(""), Fail, "without a runsc"},
		{"pool in use", func(ctx context.Context) Check {
			return checkNamed(t, networking(netip.MustParsePrefix("127.0.0.0/16"))(ctx), "address pool")
		}, Fail, "127.0.0"},
		{"no forwarding", given(network.Finding{Name: "IP forwarding", Detail: "off", Mend: "sysctl -w x\nsysctl -w y"}), Fail, "off"},
		{"closed by others", given(network.Finding{Name: "forward chains of others", Detail: "dropped"}), Warn, "dropped"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := test.check(t.Context())
			if got.Status != test.status || !strings.Contains(got.Detail, test.words) || got.Fix == "" {
				t.Errorf("got %+v; want %s, %q and a fix", got, test.status, test.words)
			}
		})
	}
}

func TestMissingTools(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if got := mmdebstrap(t.Context()); got.Status != Warn || !strings.HasPrefix(got.Fix, "apt-get install mmdebstrap") {
		t.Errorf("without mmdebstrap: %+v", got)
	}
}

// TestHangingPlatform tries a runsc that never answers, whose child would
// outlive it, and that had mounted something.
func TestHangingPlatform(t *testing.T) {
	told := filepath.Join(t.TempDir(), "pid")
	runsc := script(t, `mkdir "$TMPDIR/m" && mount -t tmpfs none "$TMPDIR/m"
		setsid sh -c 'echo $$ >"$0".new; mv "$0".new "$0"; exec tail -f -- /dev/null "$1"' "`+told+`" "$1" </dev/null >/dev/null 2>&1 &
		sleep 100`)
	ctx, cancel := context.WithCancelCause(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { // until it hangs
		for ctx.Err() == nil {
			if _, err := os.Stat(told); err == nil {
				cancel(errSlow)
			}
			<-time.After(5 * time.Millisecond)
		}
	})
	defer watching.Wait()
	defer cancel(nil)
	if _, err := tryPlatform(ctx, runsc, "kvm"); err == nil || err.Error() != errSlow.Error() {
		t.Errorf("got %v; want %v", err, errSlow)
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "innerdock-doctor-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	pid, err := os.ReadFile(told)
	if err != nil {
		t.Fatal(err)
	}
	process := filepath.Join("/proc", strings.TrimSpace(string(pid)))
	for end := time.Now().Add(time.Minute); time.Now().Before(end); <-time.After(10 * time.Millisecond) {
		if stat, err := os.ReadFile(filepath.Join(process, "stat")); err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
	}
	t.Errorf("%s lives on", process)
}

type slow struct{}

func (slow) Error() string { return "too slow" }

var errSlow = slow{}

func given(finding network.Finding) func(context.Context) Check {
	return func(context.Context) Check { return networkCheck(finding) }
}

func checkNamed(t *testing.T, checks []Check, name string) Check {
	t.Helper()
	for _, check := range checks {
		if check.Name == name {
			return check
		}
	}
	t.Fatalf("no check %q among %v", name, checks)
	return Check{}
}

// TestNamesOfFindings keeps the list of mild findings to names that exist.
func TestNamesOfFindings(t *testing.T) {
	checks := networking(netip.Prefix{})(t.Context())
	for _, name := range mild {
		checkNamed(t, checks, name)
	}
}
