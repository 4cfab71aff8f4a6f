package doctor

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
	"time"

	"github.com/innerdock/innerdock/pkg/runtime"
)

// probeTime bounds the try of a platform. A sandbox starts in a fraction of a
// second; on some virtual machines one on KVM never does.
const probeTime = 5 * time.Second

const buildRunsc = "make runsc   # builds the pinned one, and prints its path for --runsc"

// runscVersion wants a runsc above the security floor.
func runscVersion(path string) func(context.Context) Check {
	return func(ctx context.Context) Check {
		if path == "" {
			return fail("runsc", "neither in the cache nor in PATH", buildRunsc)
		}
		cmd := exec.CommandContext(ctx, path, "--version")
		cmd.WaitDelay = time.Second
		text, err := cmd.Output()
		if err != nil {
			return fail("runsc", path+": "+err.Error(), buildRunsc)
		}
		first, _, _ := strings.Cut(string(text), "\n")
		version := strings.TrimSpace(strings.TrimPrefix(first, "runsc version"))
		if err := runtime.CheckVersion(version); err != nil {
			return fail("runsc", err.Error(), buildRunsc)
		}
		return ok("runsc", version)
	}
}

// platform runs a real sandbox on systrap, which is the default and must work,
// and says of KVM whether it could be chosen.
func (m machine) platform(runsc string) func(context.Context) Check {
	return func(ctx context.Context) Check {
		if runsc == "" {
			return fail("platform", "not tried without a runsc", buildRunsc)
		}
		took, err := tryPlatform(ctx, runsc, "systrap")
		if err != nil {
			return fail("platform", "no sandbox starts on systrap: "+err.Error(),
				runsc+" --platform=systrap --network=none --ignore-cgroups do true   # says more")
		}
		detail := fmt.Sprintf("systrap runs a sandbox in %.2f s", took.Seconds())
		if _, err := os.Stat(m.kvm); err != nil {
			return ok("platform", detail+"; no KVM")
		}
		if _, err := tryPlatform(ctx, runsc, "kvm"); err != nil {
			return ok("platform", detail+"; KVM does not work here and is not used ("+err.Error()+")")
		}
		return ok("platform", detail+"; KVM works too, and --platform=kvm is faster on bare metal")
	}
}

// tryPlatform runs `true` in a sandbox and reports how long that took. Whatever
// is left of a try that took too long is found by its directory.
func tryPlatform(ctx context.Context, runsc, platform string) (time.Duration, error) {
	state, err := os.MkdirTemp("", "innerdock-doctor-")
	if err != nil {
		return 0, err
	}
	defer sweep(state)
	ctx, cancel := context.WithTimeoutCause(ctx, probeTime, fmt.Errorf("nothing in %v", probeTime))
	defer cancel()
	cmd := exec.CommandContext(ctx, runsc, "--root="+state, "--platform="+platform,
		"--network=none", "--ignore-cgroups", "do", "true")
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR=" + state}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	begun := time.Now()
	said, err := cmd.CombinedOutput()
	took := time.Since(begun)
	if err == nil {
		return took, nil
	}
	if ctx.Err() != nil {
		return took, context.Cause(ctx)
	}
	if text := lastLine(said); text != "" {
		err = errors.New(text)
	}
	return took, err
}

// sweep removes a try's directory, the processes that have it in their arguments
// and what they had mounted in it.
func sweep(dir string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		args, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(args, []byte(dir)) {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(file, "/proc/%d/", &pid); err == nil && pid != os.Getpid() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], dir+"/") {
			_ = syscall.Unmount(fields[1], syscall.MNT_DETACH)
		}
	}
	_ = os.RemoveAll(dir)
}

func lastLine(text []byte) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	last := lines[len(lines)-1]
	return last[:min(len(last), 300)]
}
