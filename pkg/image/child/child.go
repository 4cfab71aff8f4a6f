// Package child runs the host's tools so that none of them outlives this
// process: each gets its own PID and mount namespace, which the kernel empties
// when its first process dies, and that dies with us or with the context.
package child

import (
	"bytes"
	"context"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
)

// maxOutput is how much of a tool's messages is kept: the end of it.
const maxOutput = 16 << 10

// Output runs cmd and returns the end of what it wrote to the standard streams
// that cmd leaves unset. It needs root.
func Output(ctx context.Context, cmd *exec.Cmd) (string, error) {
	var out tail
	if cmd.Stdout == nil {
		cmd.Stdout = &out
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &out
	}
	err := Run(ctx, cmd)
	return strings.TrimSpace(string(out.buf)), err
}

// Run runs cmd until it ends or the context does, which kills it and all that
// it started. cmd may name further namespaces.
func Run(ctx context.Context, cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWPID
	cmd.SysProcAttr.Unshareflags |= syscall.CLONE_NEWNS // with private propagation: no mount of the tool reaches the host
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	runtime.LockOSThread() // the death signal is sent when the thread that started the child ends
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() }) // an error: it has ended
	defer stop()
	return cmd.Wait()
}

// tail keeps the end of what is written to it.
type tail struct{ buf []byte }

var _ io.Writer = (*tail)(nil)

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - maxOutput; over > 0 {
		t.buf = bytes.Clone(t.buf[over:])
	}
	return len(p), nil
}
