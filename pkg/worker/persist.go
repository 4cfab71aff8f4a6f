package worker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/durable"
	"github.com/innerdock/innerdock/pkg/runtime"
	"github.com/innerdock/innerdock/pkg/store"
	"github.com/innerdock/innerdock/pkg/worker/archive"
)

func (w *Worker) memoriesDir() string        { return filepath.Join(w.Data, "memories") }
func (w *Worker) memoryDir(id string) string { return filepath.Join(w.memoriesDir(), id) }

// openMemories removes the memories that no sandbox goes on from.
func (w *Worker) openMemories(persisted map[string]bool) error {
	if err := os.MkdirAll(w.memoriesDir(), 0o700); err != nil {
		return innerdock.Internal(err, "preparing the directory of memories")
	}
	if err := durable.Sweep(w.memoriesDir(), func(id string) bool { return persisted[id] }); err != nil {
		return innerdock.Internal(err, "removing memories that nobody needs")
	}
	return nil
}

// forget removes the memory of a sandbox that goes on by itself, or never again.
func (w *Worker) forget(id string) error {
	if err := errors.Join(os.RemoveAll(w.memoryDir(id)), os.RemoveAll(durable.Draft(w.memoriesDir(), id))); err != nil {
		return innerdock.Internal(err, "removing the memory of a sandbox")
	}
	return nil
}

// persist pauses a sandbox and gives back all that it has on the host but its
// address and its disk. The caller holds both locks of it.
//
// The store has it as paused on disk once its memory is there as a whole; until
// then it goes on if anything fails, and from then on nothing of it is needed. Its
// tenant's quota has room for what it wrote before anything is done, and for all of
// it in the end.
func (w *Worker) persist(ctx context.Context, s *sandbox) (innerdock.Sandbox, error) {
	if err := w.checkHostDisk(); err != nil {
		return innerdock.Sandbox{}, err
	}
	if _, err := w.stand(ctx, s, moving); err != nil { // its agent has a part in this
		return innerdock.Sandbox{}, err
	}
	if _, err := w.Store.Occupy(ctx, s.id, s.filestores.Size(), w.quota(), unchanged); err != nil {
		return innerdock.Sandbox{}, err
	}
	lasting := context.WithoutCancel(ctx)
	ctx, cancel := context.WithTimeout(lasting, snapshotTimeout)
	defer cancel()
	rec, err := w.writeMemory(ctx, s)
	if err != nil {
		s.log.Error("the sandbox could not be paused to the disk", "error", err)
		undo, cancel := context.WithTimeout(lasting, endTimeout)
		defer cancel()
		undone := errors.Join(w.Runtime.Resume(undo, s.id), s.home.Open(), w.forget(s.id), w.vacate(undo, s.id))
		s.thaw(undo)
		return innerdock.Sandbox{}, errors.Join(err, undone)
	}
	s.pauses.stands.Store(int32(persisted))
	s.log.Info("sandbox is paused, and its memory on the disk")
	return rec.Sandbox, w.park(lasting, s, rec)
}

// unchanged is a change to a record that is made for what comes with it.
func unchanged(*store.Record) error { return nil }

// vacate notes that there is no memory of a sandbox on the disk.
func (w *Worker) vacate(ctx context.Context, id string) error {
	_, err := w.Store.Update(ctx, id, func(r *store.Record) error {
		r.OnDisk = 0
		return nil
	})
	return err
}

// writeMemory brings a sandbox to the disk and leaves it paused.
func (w *Worker) writeMemory(ctx context.Context, s *sandbox) (rec store.Record, err error) {
	if err := s.agent.freeze(ctx); err != nil {
		return rec, err
	}
	s.home.Shut()
	if err := w.Runtime.Pause(ctx, s.id); err != nil {
		return rec, err
	}
	draft := durable.Draft(w.memoriesDir(), s.id)
	if err := w.Runtime.Checkpoint(ctx, s.id, draft, runtime.GoOn); err != nil {
		return rec, err
	}
	files, err := archive.Describe(draft)
	if err != nil {
		return rec, innerdock.Internal(err, "reading the memory of a sandbox")
	}
	if err := durable.Publish(draft, w.memoryDir(s.id)); err != nil {
		return rec, innerdock.Internal(err, "keeping the memory of a sandbox")
	}
	return w.Store.Occupy(ctx, s.id, archive.Manifest{Files: files}.Size(), w.quota(), func(r *store.Record) error {
		r.State, r.Idle, r.Persisted, r.Build = innerdock.StatePaused, false, true, w.build()
		return nil
	})
}

// succeed gives a sandbox another live half, after teardown, so that nobody sees it
// without one. Until the caller unlocks the pauses of the other one, nobody finds
// out whether that stands still. A sandbox whose end has begun is left alone.
func (w *Worker) succeed(s *sandbox, rec *store.Record, teardown func() error) (next *sandbox, err error) {
	if !s.ending.CompareAndSwap(false, true) {
		return nil, innerdock.Errorf(innerdock.CodeSandboxTerminated, "sandbox %s is being terminated", s.id)
	}
	s.cancel(errEnding)
	s.home.Close() // its socket is where the next one's will be
	failure := teardown()
	if next, err = w.open(rec); err == nil {
		next.pauses.mu.Lock()
		w.publish(next)
	}
	w.release(s)
	return next, errors.Join(failure, err)
}

// restore has a sandbox go on whose memory is on the disk. Until the store says
// that it runs, it can be done again. The caller holds the lock of s.
func (w *Worker) restore(ctx context.Context, s *sandbox, rec store.Record) (innerdock.Sandbox, error) {
	if rec.Build != w.build() {
		return innerdock.Sandbox{}, innerdock.Errorf(innerdock.CodeUnsupported,
			"sandbox %s was paused to the disk by another version of innerdock or runsc, and only that can resume it; start that, or terminate the sandbox", s.id)
	}
	if err := w.checkHostDisk(); err != nil {
		return innerdock.Sandbox{}, err
	}
	lasting := context.WithoutCancel(ctx)
	ctx, cancel := context.WithTimeout(lasting, snapshotTimeout)
	defer cancel()
	again := rec
	if docker := rec.Docker.State; docker == innerdock.DockerReady || docker == innerdock.DockerRestarting {
		again.Docker.State = innerdock.DockerStarting // to go on
	}
	next, err := w.succeed(s, &again, func() error { return nil })
	if err != nil {
		return innerdock.Sandbox{}, err
	}
	defer next.pauses.mu.Unlock()
	next.born = time.Now()
	err = w.begin(ctx, next, &again, w.images.Root(rec.Image), warmth{template: w.memoryDir(rec.ID), own: true})
	close(next.settled)
	if err != nil {
		next.log.Error("the sandbox could not be resumed from the disk", "error", err)
		return innerdock.Sandbox{}, errors.Join(err, w.park(lasting, next, rec))
	}
	again, err = w.Store.Sandbox(lasting, rec.Tenant, rec.ID)
	return again.Sandbox, errors.Join(err, w.forget(rec.ID))
}

// park gives back what a sandbox has on the host: its memory is on the disk.
func (w *Worker) park(ctx context.Context, s *sandbox, rec store.Record) error {
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	next, err := w.succeed(s, &rec, func() error { return w.remove(ctx, s.id) })
	if next != nil {
		next.waits()
		next.pauses.mu.Unlock()
	}
	return err
}

// parkAgain is for a sandbox that an earlier server had on the disk, whatever it
// was about to do.
func (w *Worker) parkAgain(ctx context.Context, rec store.Record) error {
	if err := w.remove(ctx, rec.ID); err != nil {
		return err
	}
	s, err := w.register(&rec)
	if err == nil {
		s.waits()
	}
	return err
}

// waits is the state of a sandbox that is on the disk.
func (s *sandbox) waits() {
	s.pauses.stands.Store(int32(persisted))
	close(s.settled)
}
