// Package process runs processes in the sandbox: it starts them, keeps their
// output and their exit codes, and serves both over HTTP.
package process

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/child"
	"github.com/innerdock/innerdock/pkg/agent/output"
)

// BufferSize is how much of each stream of a process is kept, in bytes.
const BufferSize = 8 << 20

// lateOutput is how long the end of a process waits for descendants that still
// hold its output. What the process itself wrote never needs it.
const lateOutput = 100 * time.Millisecond

// Command says what to start. Path is absolute; see Lookup.
type Command struct {
	Path   string
	Args   []string
	Dir    string
	Env    []string
	User   *Identity      // nil: root
	Stdin  bool           // keep standard input open for Process.WriteStdin
	Stdout *output.Buffer // required
	Stderr *output.Buffer // nil: the same pipe as standard output
}

// Process is one started process.
type Process struct {
	command Command
	pid     int
	started time.Time
	reaper  *child.Reaper
	pipes   []*output.Pipe
	copying sync.WaitGroup
	done    chan struct{}
	exit    child.Exit // once done is closed

	stdinMu sync.Mutex
	stdin   *os.File // nil: none
}

// Start starts c. The caller must see to it that Wait's goroutines end: they do
// when the process and all who hold its output have ended, or after Close.
func Start(reaper *child.Reaper, c Command) (*Process, error) {
	p := &Process{command: c, reaper: reaper, done: make(chan struct{})}
	files, err := p.open()
	defer func() {
		for _, fd := range files {
			unix.Close(fd)
		}
	}()
	if err != nil {
		p.Close()
		return nil, innerdock.Internal(err, "making the pipes of a process")
	}
	attr := &syscall.ProcAttr{Dir: c.Dir, Env: c.Env, Files: []uintptr{uintptr(files[0]), uintptr(files[1]), uintptr(files[len(files)-1])},
		Sys: &syscall.SysProcAttr{Credential: c.User.credential()}}
	pid, exit, err := reaper.Start(c.Path, c.Args, attr)
	if err != nil {
		p.Close()
		return nil, startError(c, err)
	}
	p.pid, p.started = pid, time.Now()
	for _, pipe := range p.pipes {
		p.copying.Go(pipe.Copy)
	}
	p.copying.Go(func() { p.wait(exit) })
	return p, nil
}

// open makes the descriptors that the child gets: standard input, output and,
// unless that is the same, error.
func (p *Process) open() (files []int, err error) {
	in, err := p.openStdin()
	if err != nil {
		return nil, err
	}
	files = append(files, in)
	for _, buffer := range []*output.Buffer{p.command.Stdout, p.command.Stderr} {
		if buffer == nil {
			continue
		}
		pipe, write, err := output.NewPipe(buffer)
		if err != nil {
			return files, err
		}
		p.pipes = append(p.pipes, pipe)
		files = append(files, write)
	}
	return files, nil
}

func (p *Process) openStdin() (int, error) {
	if !p.command.Stdin {
		return unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return -1, err
	}
	if err := unix.SetNonblock(fds[1], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return -1, err
	}
	p.stdin = os.NewFile(uintptr(fds[1]), "stdin")
	return fds[0], nil
}

// wait learns the end of the process and makes its output complete.
func (p *Process) wait(exit <-chan child.Exit) {
	p.exit = <-exit
	if p.stdin != nil {
		p.stdin.Close()
	}
	late := time.NewTimer(lateOutput)
	defer late.Stop()
	expired := false
	for _, pipe := range p.pipes {
		pipe.Drain()
		if expired {
			continue
		}
		select {
		case <-pipe.EOF():
		case <-late.C:
			expired = true
		}
	}
	close(p.done)
}

// PID returns the process ID.
func (p *Process) PID() int { return p.pid }

// Done returns a channel that is closed when the process has ended and its
// output is complete.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit tells how it ended. Only after Done.
func (p *Process) Exit() child.Exit { return p.exit }

// Signal sends sig to the process group.
func (p *Process) Signal(sig syscall.Signal) error {
	running, err := p.reaper.Signal(p.pid, sig)
	if !running || errors.Is(err, syscall.ESRCH) {
		return innerdock.Errorf(innerdock.CodeConflict, "process %d has exited", p.pid)
	}
	if err != nil {
		return innerdock.Internal(err, "sending a signal")
	}
	return nil
}

// WriteStdin copies from r to the standard input until r ends, and then closes
// it if last. It blocks while the process does not read; ctx ends that.
func (p *Process) WriteStdin(ctx context.Context, r io.Reader, last bool) error {
	if p.stdin == nil {
		return innerdock.Errorf(innerdock.CodeConflict, "process %d was started without stdin; start it with \"stdin\": true", p.pid)
	}
	p.stdinMu.Lock()
	defer p.stdinMu.Unlock()
	p.stdin.SetWriteDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { p.stdin.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := copyTo(p.stdin, r); err != nil {
		return p.stdinError(ctx, err)
	}
	if last {
		p.stdin.Close()
	}
	return nil
}

// copyTo is io.Copy that tells apart who failed: an error of the reader is one
// of the request.
func copyTo(w io.Writer, r io.Reader) error {
	buf := make([]byte, 32<<10)
	for {
		n, readErr := r.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
		}
		if readErr == io.EOF {
			return nil
		}
		if readErr != nil {
			return innerdock.Errorf(innerdock.CodeInvalid, "the body ended too early: %w", readErr)
		}
	}
}

func (p *Process) stdinError(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return innerdock.Errorf(innerdock.CodeTimeout, "process %d does not read its standard input", p.pid)
	case errors.Is(err, os.ErrClosed), errors.Is(err, syscall.EPIPE):
		return innerdock.Errorf(innerdock.CodeConflict, "the standard input of process %d is closed", p.pid)
	case innerdock.CodeOf(err) == innerdock.CodeInvalid:
		return err
	}
	return innerdock.Internal(err, "writing to the standard input")
}

// Close lets go of the output that descendants still hold, and waits for the
// end of what Start began. The process must have ended or be about to.
func (p *Process) Close() {
	for _, pipe := range p.pipes {
		pipe.Close()
	}
	if p.stdin != nil {
		p.stdin.Close()
	}
	p.copying.Wait()
}
