package runtime

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
)

// cgroupRoot is where the hierarchies are mounted: version 2 itself, or one
// directory per controller of version 1.
const cgroupRoot = "/sys/fs/cgroup"

// emptyPoll is how often a cgroup is looked at until its processes are gone;
// version 1 announces nothing.
const emptyPoll = 5 * time.Millisecond

// makeParent makes the cgroup that those of all sandboxes are in, where root is that
// of version 2. runsc takes a parent that it has to make for the sandbox's own, and
// could not delete that sandbox while there are others.
func makeParent(root string) error {
	if _, err := os.Stat(root + "/cgroup.controllers"); err != nil {
		return nil
	}
	err := os.Mkdir(filepath.Dir(root+CgroupPath("id")), 0o755)
	if err != nil && !errors.Is(err, os.ErrExist) {
		return innerdock.Internal(err, "making the cgroup of all sandboxes")
	}
	return nil
}

// cgroupDirs returns the directories of a sandbox's cgroup that exist.
func cgroupDirs(id string) ([]string, error) {
	perController, err := filepath.Glob(cgroupRoot + "/*" + CgroupPath(id))
	if err != nil {
		return nil, err
	}
	unified := cgroupRoot + CgroupPath(id)
	if _, err := os.Stat(unified); err == nil {
		return append(perController, unified), nil
	}
	return perController, nil
}

// OOMKilled reports whether the host's kernel killed a process of the sandbox
// because its memory was used up. It is known until the sandbox is deleted.
func OOMKilled(id string) bool {
	for _, file := range []string{"/memory" + CgroupPath(id) + "/memory.oom_control", CgroupPath(id) + "/memory.events"} {
		lines := bufio.NewScanner(bytes.NewReader(readCapped(cgroupRoot+file, 4096)))
		for lines.Scan() {
			var kills int
			if n, _ := fmt.Sscanf(lines.Text(), "oom_kill %d", &kills); n == 1 && kills > 0 {
				return true
			}
		}
	}
	return false
}

// removeCgroup kills what is left in a sandbox's cgroup and removes it.
func removeCgroup(ctx context.Context, id string) error {
	dirs, err := cgroupDirs(id)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := emptyCgroup(ctx, dir); err != nil {
			return err
		}
		if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// emptyCgroup kills the processes of a cgroup and waits until they are gone.
func emptyCgroup(ctx context.Context, dir string) error {
	for {
		pids, err := cgroupProcs(dir)
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if err := killIn(dir, pid); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(emptyPoll):
		}
	}
}

// killIn kills a process if it still is in the cgroup. The pidfd is taken
// before the cgroup is read again, so that a number which another process has
// taken over in between is never the one that is killed.
func killIn(dir string, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	pids, err := cgroupProcs(dir)
	if err != nil {
		return err
	}
	for _, p := range pids {
		if p == pid {
			err = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
	}
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("killing process %d: %w", pid, err)
	}
	return nil
}

// cgroupProcs returns the processes in a cgroup, none if it is gone.
func cgroupProcs(dir string) ([]int, error) {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, field := range bytes.Fields(text) {
		pid, err := strconv.Atoi(string(field))
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// SetCPU changes how many cores a sandbox may use, while it runs; 0: unlimited.
func SetCPU(id string, cores float64) error {
	quota := int64(-1)
	if cores > 0 {
		quota = cpuQuota(cores)
	}
	text, file := strconv.FormatInt(quota, 10), cgroupRoot+"/cpu"+CgroupPath(id)+"/cpu.cfs_quota_us"
	if _, err := os.Stat(cgroupRoot + CgroupPath(id)); err == nil { // version 2
		if quota < 0 {
			text = "max"
		}
		text, file = fmt.Sprintf("%s %d", text, cpuPeriod), cgroupRoot+CgroupPath(id)+"/cpu.max"
	}
	if err := os.WriteFile(file, []byte(text), 0); err != nil {
		return innerdock.Internal(err, "setting the CPU limit of "+id)
	}
	return nil
}
