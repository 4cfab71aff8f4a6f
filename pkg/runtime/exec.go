package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// maxError and maxOutput cap what is kept of runsc's own messages and answers.
const (
	maxError  = 8 << 10
	maxOutput = 16 << 20
)

// pipeGrace is how long a call waits for output once runsc itself has ended.
const pipeGrace = 2 * time.Second

// tableSize makes runsc inherit a file at descriptor 255. A process's table of
// descriptors never shrinks, not by exec either, and a sandbox's kernel puts its
// standard files at 253 to 255. A table that is large from the start spares it
// the growing, for which Linux lets a threaded program wait 10 ms and more. A
// benchmark sets it to 0 to measure without.
var tableSize = 256

// command is runsc with its arguments, in a session of its own: a terminal's
// Ctrl-C, or the end of the server, does not reach it.
func (r *Runsc) command(ctx context.Context, argv []string, extra ...*os.File) *exec.Cmd {
	cmd := exec.CommandContext(ctx, r.config.Path, argv...) // at the end of ctx: Process.Kill, by pidfd
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR=/tmp"}
	cmd.WaitDelay = pipeGrace
	cmd.ExtraFiles = extra
	return cmd
}

// call runs a verb that leaves no process behind and returns its output.
func (r *Runsc) call(ctx context.Context, argv []string, extra ...*os.File) ([]byte, error) {
	cmd := r.command(ctx, argv, extra...)
	stdout, stderr := &capped{limit: maxOutput, full: errTooLong}, &capped{limit: maxError}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Run(); err != nil {
		return nil, failure(ctx, err, stderr.kept.String())
	}
	return stdout.kept.Bytes(), nil
}

// callDetached runs a verb whose standard files become those of the sandbox:
// they are all /dev/null, and the errors are read from errorLog.
func (r *Runsc) callDetached(ctx context.Context, argv []string, errorLog string) error {
	if err := os.Remove(errorLog); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	var extra []*os.File
	if tableSize > 0 {
		extra = make([]*os.File, tableSize-3)
		extra[len(extra)-1] = null
	}
	if err := r.command(ctx, argv, extra...).Run(); err != nil {
		return failure(ctx, err, readErrorLog(errorLog))
	}
	return nil
}

// failed is an end of runsc other than success, with what it said.
type failed struct {
	cause   error
	message string
}

func (f *failed) Error() string {
	if f.message == "" {
		return fmt.Sprintf("runsc: %v", f.cause)
	}
	return fmt.Sprintf("runsc: %s (%v)", f.message, f.cause)
}

func (f *failed) Unwrap() error { return f.cause }

// failure explains why runsc failed; a context that ended explains it best.
func failure(ctx context.Context, err error, message string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return &failed{cause: err, message: strings.TrimSpace(message)}
}

// said reports whether err is a failure of runsc with one of these words.
func said(err error, words ...string) bool {
	var f *failed
	if !errors.As(err, &f) {
		return false
	}
	for _, w := range words {
		if strings.Contains(f.message, w) {
			return true
		}
	}
	return false
}

var errTooLong = errors.New("its answer is too long")

// capped keeps the first bytes that are written to it. What is too much is an
// error if full is one, and dropped if it is nil. The buffer is not embedded:
// its ReadFrom would pass by the limit.
type capped struct {
	kept  bytes.Buffer
	limit int
	full  error
}

func (c *capped) Write(p []byte) (int, error) {
	n := min(len(p), c.limit-c.kept.Len())
	c.kept.Write(p[:n])
	if n < len(p) && c.full != nil {
		return n, c.full
	}
	return len(p), nil
}

func readCapped(path string, limit int64) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return nil
	}
	return text
}
