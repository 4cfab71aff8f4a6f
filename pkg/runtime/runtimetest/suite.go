package runtimetest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/runtime"
)

// Subject is a runtime under test. NewSpec describes a sandbox of its own for
// every call, whose PID 1 is the guest with these arguments: "exit N", or
// "sleep", which ends with code 7 at SIGTERM.
type Subject struct {
	Runtime runtime.Runtime
	NewSpec func(t testing.TB, guest ...string) runtime.Spec
}

// caseTimeout bounds every case of the suite.
const caseTimeout = 60 * time.Second

// Suite checks that a runtime keeps the contract of runtime.Runtime.
func Suite(t *testing.T, subject Subject) {
	cases := map[string]func(*check){
		"lifecycle":                           lifecycle,
		"exit code":                           exitCode,
		"killed by a signal":                  killed,
		"an ID is taken":                      taken,
		"unknown sandboxes":                   unknown,
		"states that do not allow it":         wrongStates,
		"delete is forced and idempotent":     deletes,
		"list":                                lists,
		"bad specifications":                  badSpecs,
		"a creation that fails":               failedCreation,
		"a creation that is given up":         cancelledCreation,
		"a wait that is given up":             cancelledWait,
		"several wait":                        severalWait,
		"the writable layer":                  upperTar,
		"the writable layer cannot be read":   upperTarFails,
		"a checkpoint that ends it":           checkpointEnds,
		"a checkpoint after which it goes on": checkpointGoesOn,
		"paused and resumed":                  pauses,
		"paused and deleted":                  pausedDelete,
		"several restores":                    severalRestores,
		"a checkpoint of nothing":             checkpointFails,
		"a restore of nothing":                restoreFails,
	}
	for name, run := range cases {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), caseTimeout)
			defer cancel()
			run(&check{T: t, Subject: subject, ctx: ctx})
		})
	}
}

// check is one case with the steps that all need.
type check struct {
	*testing.T
	Subject
	ctx context.Context
}

func (c *check) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// is fails unless err is the kind and carries the code.
func (c *check) is(err, kind error, code innerdock.Code) {
	c.Helper()
	if !errors.Is(err, kind) || innerdock.CodeOf(err) != code {
		c.Errorf("the error is %q (code %s); want %q (code %s)", err, innerdock.CodeOf(err), kind, code)
	}
}

func (c *check) create(guest ...string) string {
	c.Helper()
	s := c.NewSpec(c.T, guest...)
	c.Cleanup(func() {
		if err := c.Runtime.Delete(context.WithoutCancel(c.ctx), s.ID); err != nil {
			c.Error(err)
		}
	})
	pid, err := c.Runtime.Create(c.ctx, s)
	c.must(err)
	if state := c.state(s.ID, runtime.Created); state.PID != pid || pid <= 0 {
		c.Errorf("Create tells the process ID %d and State %d", pid, state.PID)
	}
	return s.ID
}

// again creates a sandbox that may be there already.
func (c *check) again(s runtime.Spec) error {
	_, err := c.Runtime.Create(c.ctx, s)
	return err
}

func (c *check) start(guest ...string) string {
	c.Helper()
	id := c.create(guest...)
	c.must(c.Runtime.Start(c.ctx, id))
	return id
}

func (c *check) state(id string, want runtime.Status) runtime.State {
	c.Helper()
	state, err := c.Runtime.State(c.ctx, id)
	c.must(err)
	if state.ID != id || state.Status != want {
		c.Fatalf("the state is %+v; want %s", state, want)
	}
	if alive := want != runtime.Stopped; alive != (state.PID > 0) {
		c.Fatalf("the state is %+v; a live sandbox has a PID, another has none", state)
	}
	return state
}

// ends sends sig until the sandbox ends, and returns what Wait says. The first
// signal comes late and further ones follow, because nothing tells when Wait
// has reached the sandbox and when the guest catches the signal. A Wait that was
// still too late says ErrExitUnknown.
func (c *check) ends(id string, sig syscall.Signal) (int, error) {
	c.Helper()
	type result struct {
		code int
		err  error
	}
	ended := make(chan result, 1)
	go func() {
		code, err := c.Runtime.Wait(c.ctx, id)
		ended <- result{code, err}
	}()
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case r := <-ended:
			return r.code, r.err
		case <-tick.C:
			if err := c.Runtime.Kill(c.ctx, id, sig); err != nil && !errors.Is(err, runtime.ErrState) {
				c.Fatal(err)
			}
		}
	}
}

// endsWith starts the guest and checks its exit code.
func (c *check) endsWith(want int, sig syscall.Signal, guest ...string) {
	c.Helper()
	for range 3 {
		code, err := c.ends(c.start(guest...), sig)
		if errors.Is(err, runtime.ErrExitUnknown) {
			continue
		}
		c.must(err)
		if code != want {
			c.Errorf("the exit code is %d; want %d", code, want)
		}
		return
	}
	c.Error("the exit code is never known")
}

func lifecycle(c *check) {
	id := c.create("sleep")
	created := c.state(id, runtime.Created)
	c.must(c.Runtime.Start(c.ctx, id))
	if running := c.state(id, runtime.Running); running.PID != created.PID {
		c.Errorf("the kernel's PID changed from %d to %d", created.PID, running.PID)
	}
	if _, err := c.ends(id, syscall.SIGTERM); err != nil && !errors.Is(err, runtime.ErrExitUnknown) {
		c.Fatal(err)
	}
	c.state(id, runtime.Stopped)
	_, err := c.Runtime.Wait(c.ctx, id)
	c.is(err, runtime.ErrExitUnknown, innerdock.CodeSandboxTerminated)
	c.must(c.Runtime.Delete(c.ctx, id))
	_, err = c.Runtime.State(c.ctx, id)
	c.is(err, runtime.ErrNotFound, innerdock.CodeNotFound)
}

func exitCode(c *check) {
	c.endsWith(7, syscall.SIGTERM, "sleep")
	c.endsWith(0, syscall.SIGTERM, "exit", "0")
	c.endsWith(42, syscall.SIGTERM, "exit", "42")
}

func killed(c *check) { c.endsWith(128+int(syscall.SIGKILL), syscall.SIGKILL, "sleep") }

func taken(c *check) {
	s := c.NewSpec(c.T, "sleep")
	c.Cleanup(func() { _ = c.Runtime.Delete(context.WithoutCancel(c.ctx), s.ID) })
	c.must(c.again(s))
	c.is(c.again(s), runtime.ErrExists, innerdock.CodeConflict)
	c.state(s.ID, runtime.Created)
	c.must(c.Runtime.Start(c.ctx, s.ID))
	c.is(c.again(s), runtime.ErrExists, innerdock.CodeConflict)
	c.state(s.ID, runtime.Running)
}

func unknown(c *check) {
	id := NewID()
	_, stateErr := c.Runtime.State(c.ctx, id)
	_, waitErr := c.Runtime.Wait(c.ctx, id)
	for _, err := range []error{
		stateErr, waitErr, c.Runtime.Start(c.ctx, id), c.Runtime.Kill(c.ctx, id, syscall.SIGTERM),
		c.Runtime.UpperTar(c.ctx, id, io.Discard), c.Runtime.Checkpoint(c.ctx, id, c.TempDir(), runtime.End),
		c.Runtime.Pause(c.ctx, id), c.Runtime.Resume(c.ctx, id),
	} {
		c.is(err, runtime.ErrNotFound, innerdock.CodeNotFound)
	}
	prefix := c.create("sleep")[:5]
	if _, err := c.Runtime.State(c.ctx, prefix); innerdock.CodeOf(err) != innerdock.CodeInvalid {
		c.Errorf("the prefix of an ID gives %v; want an error of code invalid", err)
	}
	if err := c.Runtime.Delete(c.ctx, prefix); innerdock.CodeOf(err) != innerdock.CodeInvalid {
		c.Errorf("deleting the prefix of an ID gives %v; want an error of code invalid", err)
	}
}

func wrongStates(c *check) {
	id := c.create("sleep")
	_, err := c.Runtime.Wait(c.ctx, id)
	c.is(err, runtime.ErrState, innerdock.CodeConflict)
	c.must(c.Runtime.Start(c.ctx, id))
	c.is(c.Runtime.Start(c.ctx, id), runtime.ErrState, innerdock.CodeConflict)
	if _, err := c.ends(id, syscall.SIGKILL); err != nil && !errors.Is(err, runtime.ErrExitUnknown) {
		c.Fatal(err)
	}
	c.is(c.Runtime.Start(c.ctx, id), runtime.ErrState, innerdock.CodeConflict)
	c.is(c.Runtime.Kill(c.ctx, id, syscall.SIGTERM), runtime.ErrState, innerdock.CodeConflict)
	c.is(c.Runtime.UpperTar(c.ctx, id, io.Discard), runtime.ErrState, innerdock.CodeConflict)
	c.is(c.Runtime.Pause(c.ctx, id), runtime.ErrState, innerdock.CodeConflict)
	c.is(c.Runtime.Resume(c.ctx, id), runtime.ErrState, innerdock.CodeConflict)
}

func deletes(c *check) {
	c.must(c.Runtime.Delete(c.ctx, NewID()))
	for _, id := range []string{c.create("sleep"), c.start("sleep")} {
		for range 2 {
			c.must(c.Runtime.Delete(c.ctx, id))
		}
		_, err := c.Runtime.State(c.ctx, id)
		c.is(err, runtime.ErrNotFound, innerdock.CodeNotFound)
	}
}

func lists(c *check) {
	created, running := c.create("sleep"), c.start("sleep")
	list, err := c.Runtime.List(c.ctx)
	c.must(err)
	for id, want := range map[string]runtime.Status{created: runtime.Created, running: runtime.Running} {
		i := slices.IndexFunc(list, func(s runtime.State) bool { return s.ID == id })
		if i < 0 || list[i].Status != want || list[i].PID <= 0 {
			c.Errorf("the list %+v does not hold %s as %s", list, id, want)
		}
	}
	c.must(c.Runtime.Delete(c.ctx, created))
	list, err = c.Runtime.List(c.ctx)
	c.must(err)
	if slices.ContainsFunc(list, func(s runtime.State) bool { return s.ID == created }) {
		c.Errorf("the list %+v still holds a deleted sandbox", list)
	}
}

func badSpecs(c *check) {
	for name, spoil := range map[string]func(*runtime.Spec){
		"no ID":           func(s *runtime.Spec) { s.ID = "" },
		"a path as ID":    func(s *runtime.Spec) { s.ID = "../../../etc" },
		"a long ID":       func(s *runtime.Spec) { s.ID += "a" },
		"no arguments":    func(s *runtime.Spec) { s.Args = nil },
		"relative rootfs": func(s *runtime.Spec) { s.Rootfs = "root.erofs" },
		"negative memory": func(s *runtime.Spec) { s.Memory = -1 },
		"foreign cgroup":  func(s *runtime.Spec) { s.Cgroup = "/" },
		"options in path": func(s *runtime.Spec) { s.ScratchDir += ",size=9G" },
		"half of Docker":  func(s *runtime.Spec) { s.Docker = true; s.DockerDir = "" },
	} {
		s := c.NewSpec(c.T, "sleep")
		spoil(&s)
		if _, err := c.Runtime.Create(c.ctx, s); innerdock.CodeOf(err) != innerdock.CodeInvalid {
			c.Errorf("%s: %v; want an error of code invalid", name, err)
		}
	}
}

func failedCreation(c *check) {
	s := c.NewSpec(c.T, "sleep")
	s.Rootfs += ".missing"
	if _, err := c.Runtime.Create(c.ctx, s); err == nil {
		c.Error("a sandbox without a root was created")
	}
	c.gone(s.ID)
}

func (c *check) gone(id string) {
	c.Helper()
	_, err := c.Runtime.State(c.ctx, id)
	c.is(err, runtime.ErrNotFound, innerdock.CodeNotFound)
}

func cancelledCreation(c *check) {
	for _, after := range []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond, 40 * time.Millisecond} {
		s := c.NewSpec(c.T, "sleep")
		ctx, cancel := context.WithTimeout(c.ctx, after)
		_, err := c.Runtime.Create(ctx, s)
		cancel()
		if err == nil { // it was faster
			c.must(c.Runtime.Delete(c.ctx, s.ID))
		} else if innerdock.CodeOf(err) != innerdock.CodeTimeout {
			c.Errorf("a creation without time gives %v; want an error of code timeout", err)
		}
		c.gone(s.ID)
	}
}

func cancelledWait(c *check) {
	id := c.start("sleep")
	ctx, cancel := context.WithTimeout(c.ctx, 200*time.Millisecond)
	defer cancel()
	if _, err := c.Runtime.Wait(ctx, id); !errors.Is(err, context.DeadlineExceeded) {
		c.Errorf("a wait that is given up gives %v", err)
	}
	c.state(id, runtime.Running)
}

func severalWait(c *check) {
	id := c.start("sleep")
	done := make(chan error, 3)
	for range cap(done) {
		go func() {
			_, err := c.Runtime.Wait(c.ctx, id)
			done <- err
		}()
	}
	if _, err := c.ends(id, syscall.SIGTERM); err != nil && !errors.Is(err, runtime.ErrExitUnknown) {
		c.Fatal(err)
	}
	for range cap(done) {
		if err := <-done; err != nil && !errors.Is(err, runtime.ErrExitUnknown) {
			c.Error(err)
		}
	}
}

func upperTar(c *check) {
	id := c.start("sleep")
	var archive bytes.Buffer
	c.must(c.Runtime.UpperTar(c.ctx, id, &archive))
	for r := tar.NewReader(&archive); ; {
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			c.Fatal(err)
		}
	}
}

type brokenWriter struct{}

var errBroken = errors.New("the writer is broken")

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func upperTarFails(c *check) {
	id := c.start("sleep")
	if err := c.Runtime.UpperTar(c.ctx, id, brokenWriter{}); !errors.Is(err, errBroken) {
		c.Errorf("a broken writer gives %v", err)
	}
	c.state(id, runtime.Running)
}

// restore makes one more sandbox from a checkpoint.
func (c *check) restore(dir string) string {
	c.Helper()
	s := c.NewSpec(c.T, "sleep")
	c.Cleanup(func() {
		if err := c.Runtime.Delete(context.WithoutCancel(c.ctx), s.ID); err != nil {
			c.Error(err)
		}
	})
	pid, err := c.Runtime.Restore(c.ctx, s, dir)
	c.must(err)
	if state := c.state(s.ID, runtime.Running); state.PID != pid || pid <= 0 {
		c.Errorf("Restore tells the process ID %d and State %d", pid, state.PID)
	}
	return s.ID
}

func checkpointEnds(c *check) {
	id, dir := c.start("sleep"), filepath.Join(c.TempDir(), "checkpoint")
	c.must(c.Runtime.Checkpoint(c.ctx, id, dir, runtime.End))
	c.state(id, runtime.Stopped)
	c.is(c.Runtime.Checkpoint(c.ctx, id, dir+"2", runtime.End), runtime.ErrState, innerdock.CodeConflict)
	c.must(c.Runtime.Delete(c.ctx, id))
	c.restore(dir)
}

func checkpointGoesOn(c *check) {
	id, dir := c.start("sleep"), filepath.Join(c.TempDir(), "checkpoint")
	c.must(c.Runtime.Checkpoint(c.ctx, id, dir, runtime.GoOn))
	c.state(id, runtime.Running)
	c.restore(dir)
	c.must(c.Runtime.Checkpoint(c.ctx, id, dir+"2", runtime.GoOn))
	c.state(id, runtime.Running)
}

func pauses(c *check) {
	id := c.start("sleep")
	running := c.state(id, runtime.Running)
	c.must(c.Runtime.Resume(c.ctx, id))
	for range 2 {
		c.must(c.Runtime.Pause(c.ctx, id))
		if paused := c.state(id, runtime.Paused); paused.PID != running.PID {
			c.Errorf("the kernel's PID changed from %d to %d", running.PID, paused.PID)
		}
	}
	list, err := c.Runtime.List(c.ctx)
	c.must(err)
	if !slices.ContainsFunc(list, func(s runtime.State) bool { return s.ID == id && s.Status == runtime.Paused }) {
		c.Errorf("the list %+v does not hold %s as paused", list, id)
	}
	c.is(c.Runtime.Kill(c.ctx, id, syscall.SIGTERM), runtime.ErrState, innerdock.CodeConflict)
	dir := filepath.Join(c.TempDir(), "checkpoint")
	c.must(c.Runtime.Checkpoint(c.ctx, id, dir, runtime.GoOn))
	c.state(id, runtime.Paused)
	c.must(c.Runtime.Resume(c.ctx, id)) // one is enough
	c.state(id, runtime.Running)
	if _, err := c.ends(id, syscall.SIGTERM); err != nil && !errors.Is(err, runtime.ErrExitUnknown) {
		c.Fatal(err)
	}
	c.state(id, runtime.Stopped)
}

func pausedDelete(c *check) {
	id := c.start("sleep")
	c.must(c.Runtime.Pause(c.ctx, id))
	c.must(c.Runtime.Delete(c.ctx, id))
	c.gone(id)
}

func severalRestores(c *check) {
	first, dir := c.start("sleep"), filepath.Join(c.TempDir(), "checkpoint")
	c.must(c.Runtime.Checkpoint(c.ctx, first, dir, runtime.End))
	one, two := c.restore(dir), c.restore(dir)
	c.must(c.Runtime.Delete(c.ctx, one))
	c.state(two, runtime.Running)
	c.must(c.Runtime.Checkpoint(c.ctx, two, dir+"2", runtime.End)) // one of one that was restored
	c.restore(dir + "2")
	s := c.NewSpec(c.T, "sleep")
	s.ID = c.create("sleep")
	_, err := c.Runtime.Restore(c.ctx, s, dir)
	c.is(err, runtime.ErrExists, innerdock.CodeConflict)
	c.state(s.ID, runtime.Created)
}

func checkpointFails(c *check) {
	id := c.create("sleep")
	c.is(c.Runtime.Checkpoint(c.ctx, id, c.TempDir(), runtime.End), runtime.ErrState, innerdock.CodeConflict)
	c.state(id, runtime.Created)
}

func restoreFails(c *check) {
	s := c.NewSpec(c.T, "sleep")
	if _, err := c.Runtime.Restore(c.ctx, s, filepath.Join(c.TempDir(), "missing")); err == nil {
		c.Error("a sandbox was restored from nothing")
	}
	c.gone(s.ID)
}
