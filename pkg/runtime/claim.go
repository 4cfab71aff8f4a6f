package runtime

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
)

// Claim takes the root directory over from a server that was killed: commands
// of runsc which that server had under way are killed, so that none of them
// makes a sandbox after this server has looked for sandboxes. What they leave
// half-made is Delete's to remove. Sandboxes go on.
func (r *Runsc) Claim(ctx context.Context) error {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return innerdock.Internal(err, "listing processes")
	}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if err := r.endCommand(ctx, pid); err != nil {
			return innerdock.Internal(err, "ending a command of an earlier server")
		}
	}
	return nil
}

// endCommand kills a process if it is a command of runsc for this root, and
// waits for its end. The pidfd is taken before the command line is read, so a
// number that another process has taken over is never the one that is killed.
func (r *Runsc) endCommand(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if !r.isCommand(pid) {
		return nil
	}
	r.log.Warn("ending a command of runsc that an earlier server had under way", "pid", pid)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(emptyPoll/time.Millisecond))
		if n > 0 || (err != nil && !errors.Is(err, unix.EINTR)) {
			return err
		}
	}
	return context.Cause(ctx)
}

// isCommand tells a command (its name is that of the binary) from a sandbox's
// kernel and file server, which call themselves runsc-sandbox and runsc-gofer.
func (r *Runsc) isCommand(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return false
	}
	args := strings.Split(string(text), "\x00")
	return filepath.Base(args[0]) == filepath.Base(r.config.Path) && slices.Contains(args, "--root="+r.config.Root)
}

// removeRemains removes the files that a command which was killed has left of a
// sandbox that runsc does not know.
func (r *Runsc) removeRemains(id string) error {
	var failures error
	for _, pattern := range []string{id + "_sandbox:" + id + ".*", "runsc-" + id + ".sock"} {
		files, err := filepath.Glob(filepath.Join(r.config.Root, pattern))
		failures = errors.Join(failures, err)
		for _, file := range files {
			if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
				failures = errors.Join(failures, err)
			}
		}
	}
	return failures
}
