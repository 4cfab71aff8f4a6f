package worker

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/runtime"
	"github.com/innerdock/innerdock/pkg/store"
	"github.com/innerdock/innerdock/pkg/worker/broadcast"
)

// pauseTimeout bounds what the runtime takes to pause a sandbox, or to resume it.
const pauseTimeout = 30 * time.Second

// Bounds of what a sandbox may ask for as auto_pause.
const (
	minAutoPause = time.Second
	maxAutoPause = 30 * 24 * time.Hour
)

// standing is whether a sandbox goes on or stands still.
type standing int32

const (
	moving    standing = iota
	paused             // until somebody resumes it
	idle               // until the next request
	persisted          // as paused, and on the disk
)

// standingOf is what the store says that a sandbox is to do.
func standingOf(rec store.Record) standing {
	switch {
	case rec.State != innerdock.StatePaused:
		return moving
	case rec.Persisted:
		return persisted
	case rec.Idle:
		return idle
	}
	return paused
}

// pauses is what a sandbox needs in order to be paused.
type pauses struct {
	mu     sync.Mutex   // from the word in the store to the deed
	stands atomic.Int32 // a standing; changed with mu

	requests atomic.Int64     // that are open
	over     broadcast.Signal // none is open any more, or the sandbox goes on
}

func (p *pauses) standing() standing { return standing(p.stands.Load()) }

// Pause has a sandbox stand still: it takes no CPU, and with persist no memory. It
// waits for a Docker that is starting and for a checkpoint that is being taken.
// Pausing twice is no error.
func (w *Worker) Pause(ctx context.Context, tenant, idOrName string, persist bool) (innerdock.Sandbox, error) {
	if _, err := w.WaitDocker(ctx, tenant, idOrName); err != nil {
		return innerdock.Sandbox{}, err
	}
	s, rec, release, err := w.hold(ctx, tenant, idOrName, true)
	if err != nil {
		return innerdock.Sandbox{}, err
	}
	defer release()
	switch {
	case ctx.Err() != nil:
		return innerdock.Sandbox{}, innerdock.Errorf(innerdock.CodeUnavailable, "pausing the sandbox was given up: %w", context.Cause(ctx))
	case s.pauses.standing() == persisted:
		return rec.Sandbox, nil
	case persist:
		return w.persist(ctx, s)
	}
	return w.stand(ctx, s, paused)
}

// Resume has a paused sandbox go on; one that runs just does.
func (w *Worker) Resume(ctx context.Context, tenant, idOrName string) (innerdock.Sandbox, error) {
	s, rec, release, err := w.hold(ctx, tenant, idOrName, false)
	if err != nil {
		return innerdock.Sandbox{}, err
	}
	defer release()
	if s.pauses.standing() == persisted {
		return w.restore(ctx, s, rec)
	}
	return w.stand(ctx, s, moving)
}

// hold returns a sandbox of which nobody else changes whether it stands still, nor,
// if that is asked for, takes a checkpoint, until release is called.
func (w *Worker) hold(ctx context.Context, tenant, idOrName string, checkpoints bool) (s *sandbox, rec store.Record, release func(), err error) {
	for {
		rec, err := w.Store.Sandbox(ctx, tenant, idOrName)
		if err != nil {
			return nil, rec, nil, err
		}
		s := w.liveSandbox(rec.ID)
		if s == nil || rec.State.Ended() {
			return nil, rec, nil, endedError(rec)
		}
		release := s.pauses.mu.Unlock
		if checkpoints {
			s.checkpointing.Lock()
			release = func() { s.pauses.mu.Unlock(); s.checkpointing.Unlock() }
		}
		s.pauses.mu.Lock()
		if w.liveSandbox(rec.ID) == s {
			if rec, err = w.Store.Sandbox(ctx, tenant, rec.ID); err == nil {
				return s, rec, release, nil
			}
			release()
			return nil, rec, nil, err
		}
		release() // it has gone to the disk, come back from there, or ended
	}
}

// stand stores what the sandbox is to do, and then has it do so. It is not given
// up half-way; a server that is killed in between does the rest when it starts
// again. The caller holds the lock.
func (w *Worker) stand(ctx context.Context, s *sandbox, as standing) (innerdock.Sandbox, error) {
	ctx = context.WithoutCancel(ctx)
	rec, err := w.storeStanding(ctx, s.id, as)
	if err != nil {
		return innerdock.Sandbox{}, err
	}
	if s.pauses.standing() == moving && as == moving {
		return rec.Sandbox, nil
	}
	if err := w.enact(ctx, s, as); err != nil {
		s.log.Error("the sandbox could not be paused or resumed", "error", err)
		if as != moving && w.enact(ctx, s, moving) == nil {
			_, undone := w.storeStanding(ctx, s.id, moving)
			s.log.Info("the sandbox goes on", "error", undone)
		}
		return innerdock.Sandbox{}, err
	}
	s.log.Info("sandbox is "+string(rec.State), "idle", rec.Idle)
	return rec.Sandbox, nil
}

// storeStanding stores what a sandbox is to do, if it runs or is paused.
func (w *Worker) storeStanding(ctx context.Context, id string, as standing) (store.Record, error) {
	return w.Store.Update(ctx, id, func(r *store.Record) error {
		if r.State == innerdock.StateCreating {
			return innerdock.Errorf(innerdock.CodeConflict, "sandbox %s is still being created; wait until it runs", id)
		}
		r.State, r.Idle = innerdock.StateRunning, as == idle
		if as != moving {
			r.State = innerdock.StatePaused
		}
		return nil
	})
}

// enact has the sandbox's processes go on or stand still. While they may stand
// still, nothing is expected of them.
func (w *Worker) enact(ctx context.Context, s *sandbox, as standing) error {
	ctx, cancel := context.WithTimeout(ctx, pauseTimeout)
	defer cancel()
	if as == moving {
		if err := w.Runtime.Resume(ctx, s.id); err != nil {
			return err
		}
	}
	s.home.SetQuiet(as != moving)
	s.pauses.stands.Store(int32(as))
	s.pauses.over.Fire()
	if as != moving {
		return w.Runtime.Pause(ctx, s.id)
	}
	return nil
}

// reenact has a sandbox of an earlier server do what the store says.
func (w *Worker) reenact(ctx context.Context, s *sandbox, rec store.Record, now runtime.Status) {
	s.pauses.mu.Lock()
	defer s.pauses.mu.Unlock()
	as := standingOf(rec)
	if as == moving && now == runtime.Running {
		return
	}
	if err := w.enact(ctx, s, as); err != nil {
		s.log.Error("the sandbox could not be paused or resumed", "state", rec.State, "error", err)
	}
}

// wake has a sandbox that is ending go on, so that its processes can end by
// themselves. It cannot be paused again: the store has it as ending.
func (w *Worker) wake(ctx context.Context, s *sandbox) {
	s.pauses.mu.Lock()
	defer s.pauses.mu.Unlock()
	if now := s.pauses.standing(); now == moving || now == persisted {
		return
	}
	if err := w.enact(ctx, s, moving); err != nil {
		s.log.Warn("a paused sandbox that is ending does not go on", "error", err)
	}
}

// use opens a request to the sandbox, which does not fall idle until done is
// called. One that is idle goes on for it; one that somebody paused is refused.
func (w *Worker) use(ctx context.Context, rec store.Record) (s *sandbox, done func(), err error) {
	for {
		s := w.liveSandbox(rec.ID)
		if s == nil || rec.State.Ended() {
			return nil, nil, endedError(rec)
		}
		done := s.pauses.request()
		if found, err := w.rouse(ctx, s); found {
			if err != nil {
				done()
			}
			return s, done, err
		}
		done() // it has gone to the disk, come back from there, or ended
	}
}

// request counts one until done is called.
func (p *pauses) request() (done func()) {
	p.requests.Add(1)
	return sync.OnceFunc(func() {
		if p.requests.Add(-1) == 0 {
			p.over.Fire()
		}
	})
}

// rouse has a sandbox go on for a request that is counted already: whoever has it
// fall idle has seen the request, or is seen here. It reports whether s is still
// the sandbox's live half.
func (w *Worker) rouse(ctx context.Context, s *sandbox) (found bool, err error) {
	s.pauses.mu.Lock()
	defer s.pauses.mu.Unlock()
	if w.liveSandbox(s.id) != s {
		return false, nil
	}
	switch s.pauses.standing() {
	case idle:
		_, err = w.stand(ctx, s, moving)
	case paused, persisted:
		err = pausedError(s.id)
	}
	return true, err
}

// request is a connection to an agent. The request that it was opened for is over
// when it is closed.
type request struct {
	net.Conn
	done func()
}

func (r request) Close() error {
	r.done()
	return r.Conn.Close()
}

// watchIdle pauses the sandbox whenever no request has been open for as long as
// it asks for.
func (w *Worker) watchIdle(s *sandbox, rec store.Record) {
	if rec.Spec.AutoPause == 0 {
		return
	}
	after := time.Duration(rec.Spec.AutoPause * float64(time.Second))
	w.wg.Go(func() {
		timer := time.NewTimer(after)
		defer timer.Stop()
		for {
			over := s.pauses.over.Next()
			select {
			case <-over:
			case <-timer.C:
				w.fallIdle(s)
			case <-s.ctx.Done():
				return
			}
			timer.Reset(after)
		}
	})
}

// fallIdle pauses a sandbox until the next request, unless there is something
// that it would hold up.
func (w *Worker) fallIdle(s *sandbox) {
	if docker := s.dockerStatus().State; docker == innerdock.DockerStarting || docker == innerdock.DockerRestarting || !s.checkpointing.TryLock() {
		return
	}
	defer s.checkpointing.Unlock()
	s.pauses.mu.Lock()
	defer s.pauses.mu.Unlock()
	if s.pauses.requests.Load() > 0 || s.pauses.standing() != moving || s.ctx.Err() != nil {
		return
	}
	_, _ = w.stand(s.ctx, s, idle) // logged there
}

func planAutoPause(seconds float64) error {
	if seconds == 0 || seconds >= minAutoPause.Seconds() && seconds <= maxAutoPause.Seconds() {
		return nil
	}
	return innerdock.Errorf(innerdock.CodeInvalid, "auto_pause: %g is not between %g and %g seconds",
		seconds, minAutoPause.Seconds(), maxAutoPause.Seconds())
}

func pausedError(id string) error {
	return innerdock.Errorf(innerdock.CodeConflict, "sandbox %s is paused; resume it first: innerdock resume %s", id, id)
}
