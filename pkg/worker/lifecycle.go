package worker

import (
	"cmp"
	"context"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/wire"
	"github.com/innerdock/innerdock/pkg/network"
	"github.com/innerdock/innerdock/pkg/runtime"
	"github.com/innerdock/innerdock/pkg/store"
)

const (
	// agentTimeout is how long a started sandbox has until its agent answers.
	agentTimeout = 20 * time.Second
	// endTimeout bounds the removal of a sandbox's resources.
	endTimeout = 60 * time.Second
	// maxPIDs is the host's cap on a sandbox's tasks. The sentry panics when it
	// meets it, which ends that sandbox alone.
	maxPIDs = 16384
)

// Create makes a sandbox and returns when its agent answers; Docker, if asked
// for, is then starting. When ctx ends first, nothing is left.
func (w *Worker) Create(ctx context.Context, tenant string, spec innerdock.SandboxSpec) (innerdock.Sandbox, error) {
	rec, err := w.plan(ctx, tenant, spec)
	if err != nil {
		return innerdock.Sandbox{}, err
	}
	var s *sandbox
	if spec.Snapshot == "" {
		s, err = w.claim(ctx, rec)
	}
	if s == nil && err == nil {
		s, err = w.create(ctx, rec, w.images.Root(rec.Image))
	}
	if err != nil {
		return innerdock.Sandbox{}, err
	}
	stored, err := w.Store.Sandbox(ctx, tenant, s.id)
	return stored.Sandbox, err
}

// create stores the intent, makes every resource and starts the sandbox on the
// root file. A failure undoes all of it and leaves a failed record with the reason.
func (w *Worker) create(ctx context.Context, rec *store.Record, root string) (*sandbox, error) {
	if err := w.checkHostDisk(); err != nil {
		return nil, err
	}
	err := w.Store.Insert(ctx, rec, w.Network.Capacity())
	for innerdock.CodeOf(err) == innerdock.CodeExhausted && rec.Tenant != poolTenant && rec.Tenant != templateTenant && w.giveBack("its address was needed") {
		err = w.Store.Insert(ctx, rec, w.Network.Capacity())
	}
	if err != nil {
		return nil, err
	}
	from := w.warmth(ctx, rec, root)
	s, err := w.attempt(ctx, rec, root, from)
	if unwarmed := (*notWarm)(nil); errors.As(err, &unwarmed) && from.snapshot {
		err = innerdock.Errorf(innerdock.CodeUnavailable, "snapshot %s cannot be restored: %w", rec.Spec.Snapshot, unwarmed.cause)
	} else if unwarmed != nil {
		s, err = w.attempt(ctx, rec, root, w.distrust(ctx, from, unwarmed.cause))
	}
	if err == nil {
		return s, nil
	}
	if s == nil {
		return nil, errors.Join(err, w.discard(rec.ID, err.Error()))
	}
	if ctx.Err() != nil {
		s.log.Info("the creation was given up", "error", err)
	} else {
		s.log.Error("sandbox could not be created", "error", err)
	}
	return nil, errors.Join(err, w.end(s, ending{state: innerdock.StateFailed, reason: err.Error()}))
}

// notWarm is why a sandbox could not be started from its template. Nothing is
// left of the attempt but its record.
type notWarm struct{ cause error }

func (e *notWarm) Error() string { return "starting from a template: " + e.cause.Error() }

// attempt starts the sandbox from a template or cold. When that fails, the
// sandbox is the caller's to end, or nil if there is nothing to end.
func (w *Worker) attempt(ctx context.Context, rec *store.Record, root string, from warmth) (*sandbox, error) {
	s, err := w.register(rec)
	if err != nil {
		return nil, err
	}
	defer close(s.settled)
	err = w.begin(ctx, s, rec, root, from)
	if err == nil || from.template == "" || ctx.Err() != nil || s.ctx.Err() != nil {
		return s, err
	}
	if !s.ending.CompareAndSwap(false, true) {
		return s, err
	}
	if failure := w.retract(s); failure != nil {
		return nil, errors.Join(err, failure)
	}
	return nil, &notWarm{err}
}

// begin starts a sandbox that is registered. It gives up when the sandbox is ended.
func (w *Worker) begin(ctx context.Context, s *sandbox, rec *store.Record, root string, from warmth) error {
	s.from, s.started = from, w.maker.starting()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(s.ctx, func() { cancel(context.Cause(s.ctx)) })
	defer stop()
	err := w.start(ctx, s, rec, root)
	if err == nil {
		return nil
	}
	s.started()
	if cause := context.Cause(ctx); cause != nil {
		return innerdock.Errorf(innerdock.CodeUnavailable, "creating the sandbox was given up: %w", cause)
	}
	return err
}

// retract takes a sandbox that is being started back to its record. Who waits
// for its end has it with that. The caller has it for its end.
func (w *Worker) retract(s *sandbox) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), endTimeout)
	defer cancel()
	s.cancel(errEnding)
	err := w.remove(ctx, s.id)
	w.release(s)
	return err
}

// start brings the sandbox from its record to a configured agent.
func (w *Worker) start(ctx context.Context, s *sandbox, rec *store.Record, root string) error {
	clock := newStopwatch(rec.Timings)
	policy, err := policyOf(rec.Spec.Network)
	if err != nil {
		return err
	}
	endpoint, err := w.Network.Attach(ctx, s.id, rec.NetIndex, policy)
	if err != nil {
		return err
	}
	clock.lap("network")
	if err := w.awaken(ctx, s, rec, root, endpoint, clock); err != nil {
		return err
	}
	w.beginDocker(s, *rec, endpoint)
	stored, err := w.Store.Update(ctx, s.id, func(r *store.Record) error {
		r.Address = endpoint.Address.Addr().String()
		if s.from.own {
			r.Docker, r.Persisted, r.OnDisk = s.dockerStatus(), false, 0
		} else {
			r.Timings, r.Start = clock.laps, s.from.kind()
		}
		if r.Pool == "" { // else it is not until somebody has it
			r.State = innerdock.StateRunning
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.log.Info("sandbox is running", "seconds", time.Since(s.born).Seconds(), "start", stored.Start, "why", s.from.why)
	w.watchIdle(s, stored)
	return nil
}

// awaken has PID 1 run and its agent configured. The agent is waited for from the
// beginning: in a sandbox that is restored it runs before the runtime says so.
func (w *Worker) awaken(ctx context.Context, s *sandbox, rec *store.Record, root string, endpoint network.Endpoint, clock *stopwatch) error {
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	var greeting sync.WaitGroup
	var silent error
	greeting.Go(func() { silent = w.greet(waiting, s, rec, endpoint) })
	if err := w.boot(ctx, s, w.runtimeSpec(rec, root, endpoint)); err != nil {
		cancel()
		greeting.Wait()
		return err
	}
	clock.lap("runtime")
	late := time.AfterFunc(agentTimeout, cancel)
	defer late.Stop()
	greeting.Wait()
	if silent != nil {
		return silent
	}
	clock.lap("agent")
	return nil
}

// boot has PID 1 run, and its death watched.
func (w *Worker) boot(ctx context.Context, s *sandbox, spec runtime.Spec) (err error) {
	var pid int
	if s.from.template != "" {
		pid, err = w.Runtime.Restore(ctx, spec, s.from.template)
	} else {
		pid, err = w.Runtime.Create(ctx, spec)
	}
	if err != nil {
		return err
	}
	if err := w.watch(s, pid); err != nil {
		return innerdock.Errorf(innerdock.CodeInternal, "the sandbox died while it was made: %w", err)
	}
	if s.from.template != "" {
		return nil // it runs
	}
	return w.Runtime.Start(ctx, s.id)
}

func (w *Worker) runtimeSpec(rec *store.Record, root string, endpoint network.Endpoint) runtime.Spec {
	spec := runtime.Spec{
		ID: rec.ID, Hostname: cmp.Or(rec.Name, rec.ID), Rootfs: root, Disk: rec.Disk, ScratchDir: w.ScratchDir(),
		Args: []string{wire.AgentPath}, NetNS: endpoint.NetNS,
		CPU: rec.CPU, Memory: rec.Memory, Shape: cmp.Or(rec.Shape, shape(rec.Memory)), PIDs: maxPIDs,
		Docker: rec.Spec.Docker.Enabled, Moved: rec.Moved,
		ControlDir: w.controlDir(rec.ID), AgentDir: w.agentDir, BundleDir: w.bundleDir(rec.ID),
	}
	if spec.Docker {
		spec.DockerDir = w.dockerDir(rec.ID)
	}
	return spec
}

// greet waits for the agent and tells it what it needs to know.
func (w *Worker) greet(ctx context.Context, s *sandbox, rec *store.Record, endpoint network.Endpoint) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.dead, cancel)()
	err := s.agent.configure(ctx, wire.Configuration{
		Hostname:   cmp.Or(rec.Name, rec.ID),
		Machine:    machineID(rec.ID),
		Address:    endpoint.Address.Addr().String(),
		Nameserver: endpoint.Service.String(),
		Env:        rec.Env, Dir: rec.Dir, User: rec.User,
		Docker: dockerToCome(rec),
	})
	if err == nil {
		return nil
	}
	select {
	case <-s.dead.Done():
		return innerdock.Errorf(innerdock.CodeInternal, "the sandbox died while it started: %s", causeOfDeath(s.id))
	default:
		return err
	}
}

// dockerToCome is the profile of the Docker that is yet to be started, or "".
func dockerToCome(rec *store.Record) innerdock.DockerProfile {
	if rec.Docker.State != innerdock.DockerStarting {
		return ""
	}
	return rec.Docker.Profile
}

// Terminate ends a sandbox and returns when nothing of it is left. Its processes
// get SIGTERM, and SIGKILL after grace. Ending one that has ended already is no
// error.
func (w *Worker) Terminate(ctx context.Context, tenant, idOrName string, grace time.Duration) (innerdock.Sandbox, error) {
	rec, err := w.Store.Sandbox(ctx, tenant, idOrName)
	if err != nil {
		return innerdock.Sandbox{}, err
	}
	// One that could not be started warm ends by that, and lives on.
	for s := w.liveSandbox(rec.ID); s != nil; s = w.liveSandbox(rec.ID) {
		if err := w.end(s, ending{state: innerdock.StateTerminated, grace: grace}); err != nil {
			return innerdock.Sandbox{}, err
		}
	}
	return w.Sandbox(context.WithoutCancel(ctx), tenant, rec.ID)
}

// ending says how a sandbox ends.
type ending struct {
	state  innerdock.SandboxState // terminated or failed
	reason string
	grace  time.Duration         // for its processes; none when they are dead or must die
	last   func(context.Context) // is done before anything is removed, unless nil
}

// end ends a sandbox once; further callers wait for the first and get its
// result. It does not stop half-way when a request is cancelled.
func (w *Worker) end(s *sandbox, how ending) error {
	if s.ending.CompareAndSwap(false, true) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), endTimeout+how.grace)
		defer cancel()
		s.cancel(errEnding)
		<-s.settled
		s.endErr = w.finish(ctx, s, how)
		if s.endErr != nil {
			s.log.Error("sandbox could not be removed; the next start of the server tries again", "error", s.endErr)
		}
		w.release(s)
	}
	<-s.ended
	return s.endErr
}

// release lets go of the live half of a sandbox that has no resources any more.
func (w *Worker) release(s *sandbox) {
	s.home.Close()
	_ = s.logFile.Close()
	w.mu.Lock()
	if w.live[s.id] == s {
		delete(w.live, s.id)
	}
	w.mu.Unlock()
	close(s.ended)
	w.pools.changed.Fire() // it may have been one of theirs
}

func (w *Worker) finish(ctx context.Context, s *sandbox, how ending) error {
	_, err := w.Store.Update(ctx, s.id, func(r *store.Record) error {
		r.State, r.Reason = innerdock.StateTerminating, how.reason
		return nil
	})
	if err != nil {
		return err
	}
	if how.last != nil {
		how.last(ctx)
	}
	if how.grace > 0 && s.pauses.standing() != persisted {
		w.stopGently(ctx, s, how.grace)
	}
	s.setDocker(func(d *innerdock.DockerStatus) { d.State = innerdock.DockerDisabled })
	if err := w.remove(ctx, s.id); err != nil {
		return err
	}
	s.log.Info("sandbox has ended", "state", how.state, "reason", how.reason)
	return w.close(ctx, s.id, how.state)
}

// stopGently asks PID 1 to stop its processes, and waits for it.
func (w *Worker) stopGently(ctx context.Context, s *sandbox, grace time.Duration) {
	w.wake(ctx, s)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	if s.agent.shutdown(ctx, grace) != nil { // of another version, or not connected
		if err := w.Runtime.Kill(ctx, s.id, syscall.SIGTERM); err != nil {
			return // dead or stuck: it is killed next
		}
	}
	select {
	case <-s.dead.Done():
	case <-timer.C:
		s.log.Warn("sandbox did not stop in time and is killed", "grace", grace)
	case <-ctx.Done():
	}
}

// remove removes every resource that a sandbox may have on the host, known by
// its ID alone. What is not there is no error.
func (w *Worker) remove(ctx context.Context, id string) error {
	if err := w.Runtime.Delete(ctx, id); err != nil {
		return err // its processes may still write: keep the rest for the next attempt
	}
	err := w.Network.Detach(ctx, id)
	if failure := os.RemoveAll(w.sandboxDir(id)); failure != nil {
		err = errors.Join(err, innerdock.Internal(failure, "removing the sandbox's directory"))
	}
	return err
}

// close writes the last state of a sandbox whose resources are gone.
func (w *Worker) close(ctx context.Context, id string, state innerdock.SandboxState) error {
	if err := w.forget(id); err != nil {
		return err
	}
	_, err := w.Store.Update(ctx, id, func(r *store.Record) error {
		now := time.Now().UTC()
		r.State, r.EndedAt, r.Address = state, &now, ""
		if r.Docker.State != innerdock.DockerFailed {
			r.Docker.State = innerdock.DockerDisabled
		}
		return nil
	})
	return err
}

// discard fails a sandbox that has a record and perhaps resources, but no live half.
func (w *Worker) discard(id, reason string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), endTimeout)
	defer cancel()
	_, err := w.Store.Update(ctx, id, func(r *store.Record) error {
		if r.State != innerdock.StateTerminating {
			r.State, r.Reason = innerdock.StateTerminating, reason
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := w.remove(ctx, id); err != nil {
		return err
	}
	state := innerdock.StateTerminated
	if reason != "" {
		state = innerdock.StateFailed
	}
	return w.close(ctx, id, state)
}

// stopwatch writes the seconds of each phase of a start into laps.
type stopwatch struct {
	laps map[string]float64
	last time.Time
}

func newStopwatch(laps map[string]float64) *stopwatch { return &stopwatch{laps, time.Now()} }

func (s *stopwatch) lap(name string) {
	now := time.Now()
	s.laps[name] = now.Sub(s.last).Seconds()
	s.last = now
}
