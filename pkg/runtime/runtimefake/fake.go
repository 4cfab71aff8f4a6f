// Package runtimefake is a runtime.Runtime in memory. What would be PID 1 of a
// sandbox is a function; so a test of the worker can let the real agent run in
// the test's own process, against the control directory of the specification.
package runtimefake

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/runtime"
)

// Program is PID 1: it returns its exit code, soon after ctx ends at the latest.
// ctx ends when the sandbox is killed or deleted; other signals arrive on signals.
type Program func(ctx context.Context, spec runtime.Spec, signals <-chan syscall.Signal) int

// firstPID is above what the kernel gives to processes, so that nobody can
// signal a real process by the PID of a fake sandbox.
const firstPID = 1 << 23

// Fake is a runtime.Runtime in memory. Use New.
type Fake struct {
	program Program

	mu        sync.Mutex
	sandboxes map[string]*sandbox
	nextPID   int
}

var _ runtime.Runtime = (*Fake)(nil)

type sandbox struct {
	spec    runtime.Spec
	status  runtime.Status
	pid     int
	signals chan syscall.Signal
	kill    context.CancelFunc
	killed  bool
	ended   chan struct{} // closed when PID 1 has ended
	code    int
}

// New returns an empty fake. A nil program waits for its end: it exits with
// code 143 at SIGTERM.
func New(program Program) *Fake {
	if program == nil {
		program = untilTerminated
	}
	return &Fake{program: program, sandboxes: map[string]*sandbox{}, nextPID: firstPID}
}

func untilTerminated(ctx context.Context, _ runtime.Spec, signals <-chan syscall.Signal) int {
	for {
		select {
		case <-ctx.Done():
			return 0
		case sig := <-signals:
			if sig == syscall.SIGTERM {
				return 128 + int(sig)
			}
		}
	}
}

// Create implements runtime.Runtime. A Rootfs that ends in ".missing" fails.
func (f *Fake) Create(ctx context.Context, spec runtime.Spec) (pid int, err error) {
	if err := spec.Validate(); err != nil {
		return 0, err
	}
	if ctx.Err() != nil {
		return 0, innerdock.Errorf(innerdock.CodeTimeout, "creating the sandbox was given up: %w", context.Cause(ctx))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sandboxes[spec.ID] != nil {
		return 0, innerdock.Errorf(innerdock.CodeConflict, "%w: %s", runtime.ErrExists, spec.ID)
	}
	if strings.HasSuffix(spec.Rootfs, ".missing") {
		return 0, innerdock.Errorf(innerdock.CodeInternal, "there is no %s", spec.Rootfs)
	}
	f.nextPID++
	f.sandboxes[spec.ID] = &sandbox{
		spec: spec, status: runtime.Created, pid: f.nextPID,
		signals: make(chan syscall.Signal, 16), ended: make(chan struct{}),
	}
	return f.nextPID, nil
}

// Start implements runtime.Runtime. The program outlives ctx; Delete waits for it.
func (f *Fake) Start(ctx context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.find(id)
	if err != nil {
		return err
	}
	if s.status != runtime.Created {
		return innerdock.Errorf(innerdock.CodeConflict, "%w: it is %s", runtime.ErrState, s.status)
	}
	s.status = runtime.Running
	life, kill := context.WithCancel(context.WithoutCancel(ctx))
	s.kill = kill
	go func() {
		code := f.program(life, s.spec, s.signals)
		f.mu.Lock()
		defer f.mu.Unlock()
		kill()
		s.code, s.status, s.pid = code, runtime.Stopped, 0
		if s.killed {
			s.code = 128 + int(syscall.SIGKILL)
		}
		close(s.ended)
	}()
	return nil
}

// Checkpoint implements runtime.Runtime. It saves nothing but that it was made.
func (f *Fake) Checkpoint(ctx context.Context, id, dir string, then runtime.After) error {
	state, err := f.State(ctx, id)
	switch {
	case err != nil:
		return err
	case state.Status != runtime.Running && state.Status != runtime.Paused:
		return innerdock.Errorf(innerdock.CodeConflict, "%w: it is %s", runtime.ErrState, state.Status)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return innerdock.Internal(err, "making the checkpoint's directory")
	}
	if err := os.WriteFile(filepath.Join(dir, checkpointFile), nil, 0o600); err != nil {
		return innerdock.Internal(err, "writing the checkpoint")
	}
	if then == runtime.GoOn {
		return nil
	}
	if err := f.Kill(ctx, id, syscall.SIGKILL); err != nil {
		return err
	}
	_, err = f.Wait(ctx, id)
	if errors.Is(err, runtime.ErrExitUnknown) {
		return nil
	}
	return err
}

// checkpointFile is the one file of a checkpoint.
const checkpointFile = "checkpoint.img"

// Restore implements runtime.Runtime: the program begins anew.
func (f *Fake) Restore(ctx context.Context, spec runtime.Spec, dir string) (pid int, err error) {
	if _, err := os.Stat(filepath.Join(dir, checkpointFile)); err != nil {
		return 0, innerdock.Internal(err, "restoring the sandbox")
	}
	if pid, err = f.Create(ctx, spec); err != nil {
		return 0, err
	}
	return pid, f.Start(ctx, spec.ID)
}

// Pause implements runtime.Runtime. The program itself goes on.
func (f *Fake) Pause(_ context.Context, id string) error { return f.set(id, runtime.Paused) }

// Resume implements runtime.Runtime.
func (f *Fake) Resume(_ context.Context, id string) error { return f.set(id, runtime.Running) }

// set moves a sandbox between running and paused.
func (f *Fake) set(id string, status runtime.Status) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.find(id)
	if err != nil {
		return err
	}
	if s.status != runtime.Running && s.status != runtime.Paused {
		return innerdock.Errorf(innerdock.CodeConflict, "%w: it is %s", runtime.ErrState, s.status)
	}
	s.status = status
	return nil
}

// State implements runtime.Runtime.
func (f *Fake) State(_ context.Context, id string) (runtime.State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.find(id)
	if err != nil {
		return runtime.State{}, err
	}
	return s.state(), nil
}

func (s *sandbox) state() runtime.State {
	return runtime.State{ID: s.spec.ID, Status: s.status, PID: s.pid}
}

// Kill implements runtime.Runtime.
func (f *Fake) Kill(_ context.Context, id string, sig syscall.Signal) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.find(id)
	if err != nil {
		return err
	}
	if s.status != runtime.Running {
		return innerdock.Errorf(innerdock.CodeConflict, "%w: it is %s", runtime.ErrState, s.status)
	}
	if sig == syscall.SIGKILL {
		s.killed = true
		s.kill()
		return nil
	}
	select {
	case s.signals <- sig:
	default: // as with real signals, those that pile up are dropped
	}
	return nil
}

// Delete implements runtime.Runtime.
func (f *Fake) Delete(ctx context.Context, id string) error {
	f.mu.Lock()
	s, err := f.find(id)
	if innerdock.CodeOf(err) == innerdock.CodeInvalid {
		f.mu.Unlock()
		return err
	}
	if s == nil {
		f.mu.Unlock()
		return nil
	}
	running := s.kill != nil
	if running {
		s.killed = s.killed || s.status == runtime.Running || s.status == runtime.Paused
		s.kill()
	}
	f.mu.Unlock()
	if running {
		select {
		case <-s.ended:
		case <-ctx.Done():
			return innerdock.Errorf(innerdock.CodeTimeout, "deleting the sandbox took too long: %w", context.Cause(ctx))
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.sandboxes, id)
	return nil
}

// Wait implements runtime.Runtime.
func (f *Fake) Wait(ctx context.Context, id string) (int, error) {
	f.mu.Lock()
	s, err := f.find(id)
	if err != nil {
		f.mu.Unlock()
		return 0, err
	}
	status := s.status
	f.mu.Unlock()
	switch status {
	case runtime.Created:
		return 0, innerdock.Errorf(innerdock.CodeConflict, "%w: it was not started", runtime.ErrState)
	case runtime.Stopped:
		return 0, innerdock.Errorf(innerdock.CodeSandboxTerminated, "%w: %s", runtime.ErrExitUnknown, id)
	}
	select {
	case <-s.ended:
		return s.code, nil
	case <-ctx.Done():
		return 0, innerdock.Errorf(innerdock.CodeTimeout, "waiting for the sandbox took too long: %w", context.Cause(ctx))
	}
}

// List implements runtime.Runtime.
func (f *Fake) List(context.Context) ([]runtime.State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]runtime.State, 0, len(f.sandboxes))
	for _, s := range f.sandboxes {
		list = append(list, s.state())
	}
	return list, nil
}

// UpperTar implements runtime.Runtime: the archive is empty.
func (f *Fake) UpperTar(ctx context.Context, id string, w io.Writer) error {
	state, err := f.State(ctx, id)
	if err != nil {
		return err
	}
	if state.Status != runtime.Running {
		return innerdock.Errorf(innerdock.CodeConflict, "%w: it is %s", runtime.ErrState, state.Status)
	}
	if err := tar.NewWriter(w).Close(); err != nil {
		return innerdock.Internal(err, "handing over the sandbox's writable layer")
	}
	return nil
}

// find returns a sandbox; the caller holds the lock.
func (f *Fake) find(id string) (*sandbox, error) {
	if err := runtime.CheckID(id); err != nil {
		return nil, err
	}
	if s := f.sandboxes[id]; s != nil {
		return s, nil
	}
	return nil, innerdock.Errorf(innerdock.CodeNotFound, "%w: %s", runtime.ErrNotFound, id)
}
