package worker

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/wire"
	"github.com/innerdock/innerdock/pkg/durable"
	"github.com/innerdock/innerdock/pkg/runtime"
	"github.com/innerdock/innerdock/pkg/store"
	"github.com/innerdock/innerdock/pkg/worker/archive"
)

const (
	// defaultSnapshots is how many a tenant may have at a time.
	defaultSnapshots = 100
	maxTTL           = 100 * 365 * 24 * time.Hour
	// snapshotTimeout bounds the taking of one, which is not given up half-way.
	snapshotTimeout = 10 * time.Minute
	// thawTimeout bounds what a sandbox takes to serve Docker's API again.
	thawTimeout = time.Minute
)

func (w *Worker) snapshotsDir() string         { return filepath.Join(w.Data, "snapshots") }
func (w *Worker) snapshotDir(id string) string { return filepath.Join(w.snapshotsDir(), id) }

// openSnapshots removes what servers that were killed have left of snapshots.
// Docker of the sandboxes that they were taken of goes on by followDocker.
func (w *Worker) openSnapshots(ctx context.Context) error {
	if err := os.MkdirAll(w.snapshotsDir(), 0o700); err != nil {
		return innerdock.Internal(err, "preparing the directory of snapshots")
	}
	rows, err := w.Store.AllSnapshots(ctx)
	if err != nil {
		return err
	}
	whole := map[string]bool{}
	for _, row := range rows {
		if _, err := os.Stat(w.snapshotDir(row.ID)); err == nil && row.Ready && !row.Fork {
			whole[row.ID] = true
			continue
		}
		w.Logger.Info("removing what is left of a snapshot", "snapshot", row.ID, "container_id", row.Sandbox)
		if err := w.removeSnapshot(ctx, row.ID); err != nil {
			return err
		}
	}
	if err := durable.Sweep(w.snapshotsDir(), func(name string) bool { return whole[name] }); err != nil {
		return innerdock.Internal(err, "removing what is left of a snapshot")
	}
	return nil
}

// Snapshot keeps a running sandbox as it is, and lets it go on.
func (w *Worker) Snapshot(ctx context.Context, tenant, idOrName string, spec innerdock.SnapshotSpec) (innerdock.Snapshot, error) {
	if !(spec.TTL >= 0 && spec.TTL <= maxTTL.Seconds()) || spec.Keep < 0 {
		return innerdock.Snapshot{}, innerdock.Errorf(innerdock.CodeInvalid, "ttl: %g is not between 0 and %g seconds, or keep: %d is less than 0", spec.TTL, maxTTL.Seconds(), spec.Keep)
	}
	snap, err := w.capture(ctx, tenant, idOrName, func(snap *store.Snapshot) {
		snap.Keep = spec.Keep
		if spec.TTL > 0 {
			snap.ExpiresAt = snap.CreatedAt.Add(time.Duration(spec.TTL * float64(time.Second)))
		}
	})
	return w.shown(snap), err
}

// shown is a snapshot as its tenant sees it.
func (w *Worker) shown(snap store.Snapshot) innerdock.Snapshot {
	snap.ExpiresAt = w.Policy.expiry(snap)
	return snap.Snapshot
}

// quota is what a tenant may have.
func (w *Worker) quota() store.Quota {
	return store.Quota{Count: cmp.Or(w.Policy.Count, defaultSnapshots), Bytes: w.Policy.Bytes}
}

// capture takes a snapshot, whose row is as describe says. Once its row is stored, it does
// not end with ctx.
func (w *Worker) capture(ctx context.Context, tenant, idOrName string, describe func(*store.Snapshot)) (store.Snapshot, error) {
	rec, err := w.Store.Sandbox(ctx, tenant, idOrName)
	if err != nil {
		return store.Snapshot{}, err
	}
	s, done, err := w.use(ctx, rec)
	if err != nil {
		return store.Snapshot{}, err
	}
	defer done()
	if rec.State != innerdock.StateRunning && rec.State != innerdock.StatePaused {
		return store.Snapshot{}, innerdock.Errorf(innerdock.CodeConflict, "sandbox %s is %s; only a running one can be kept", rec.ID, rec.State)
	}
	if err := s.settle(ctx); err != nil {
		return store.Snapshot{}, err
	}
	if err := w.checkHostDisk(); err != nil {
		return store.Snapshot{}, err
	}
	snap := store.Snapshot{Tenant: tenant, Build: w.build(), Spec: rec.Spec, Env: rec.Env, Shape: rec.Shape, Profile: rec.Docker.Profile}
	if snap.Shape == 0 {
		snap.Shape = shape(rec.Memory)
	}
	snap.Snapshot = innerdock.Snapshot{ID: newID(w.Prefix), Sandbox: rec.ID, Image: rec.Image, CPU: rec.CPU, Memory: rec.Memory,
		Disk: rec.Disk, Docker: s.dockerStatus().State == innerdock.DockerReady, CreatedAt: time.Now().UTC()}
	snap.Size = s.filestores.Size() // at least: what it wrote
	describe(&snap)
	if err := w.Store.InsertSnapshot(ctx, snap, w.quota()); err != nil {
		return store.Snapshot{}, err
	}
	lasting := context.WithoutCancel(ctx)
	ctx, cancel := context.WithTimeout(lasting, snapshotTimeout)
	defer cancel()
	if err := w.write(ctx, s, &snap); err != nil {
		undo, cancel := context.WithTimeout(lasting, endTimeout)
		defer cancel()
		return store.Snapshot{}, errors.Join(err, w.removeSnapshot(undo, snap.ID))
	}
	s.log.Info("a snapshot was taken", "snapshot", snap.ID, "bytes", snap.Size)
	return snap, nil
}

// write makes the files of a snapshot, and then says that it is ready.
func (w *Worker) write(ctx context.Context, s *sandbox, snap *store.Snapshot) error {
	temp := durable.Draft(w.snapshotsDir(), snap.ID)
	if err := s.checkpoint(ctx, w.Runtime, temp); err != nil {
		return err
	}
	files, err := archive.Describe(temp)
	if err != nil {
		return innerdock.Internal(err, "reading a snapshot")
	}
	snap.Size = archive.Manifest{Files: files}.Size()
	return w.keep(ctx, temp, snap)
}

// keep gives the complete files of a snapshot their place, and says that it is ready.
func (w *Worker) keep(ctx context.Context, temp string, snap *store.Snapshot) error {
	if err := durable.Publish(temp, w.snapshotDir(snap.ID)); err != nil {
		return innerdock.Internal(err, "keeping a snapshot")
	}
	if err := w.Store.SnapshotReady(ctx, *snap, w.quota()); err != nil {
		return err
	}
	w.snapshotsChanged.Fire()
	return nil
}

// checkpoint writes the sandbox to dir while its agent keeps Docker quiet. One
// at a time.
func (s *sandbox) checkpoint(ctx context.Context, rt runtime.Runtime, dir string) error {
	s.checkpointing.Lock()
	defer s.checkpointing.Unlock()
	if s.pauses.standing() != moving {
		return pausedError(s.id)
	}
	clock := newStopwatch(map[string]float64{})
	if err := s.agent.freeze(ctx); err != nil {
		return err // whether it is frozen or not: followDocker sees to it
	}
	clock.lap("freeze")
	s.home.Shut()
	clock.lap("part")
	err := errors.Join(rt.Checkpoint(ctx, s.id, dir, runtime.GoOn), s.home.Open())
	clock.lap("checkpoint")
	s.thaw(ctx)
	clock.lap("thaw")
	s.log.Debug("a checkpoint was taken", "seconds", clock.laps)
	return err
}

// thaw lets Docker go on after a checkpoint. Where the agent cannot be reached in
// time, followDocker tries again; where Docker does not come back, the agent starts
// it anew, and says if that has failed.
func (s *sandbox) thaw(ctx context.Context) {
	if s.dockerStart.Profile == "" || s.dockerStatus().State == innerdock.DockerFailed {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, thawTimeout)
	defer cancel()
	var last wire.DockerEvent
	err := s.agent.startDocker(ctx, s.dockerStart, func(event wire.DockerEvent) { last = event })
	if (err != nil || last.Error != "") && s.ctx.Err() == nil {
		s.log.Error("Docker does not go on after a checkpoint", "error", err, "reason", last.Error)
	}
}

// Snapshots lists a tenant's snapshots, newest first.
func (w *Worker) Snapshots(ctx context.Context, tenant string) ([]innerdock.Snapshot, error) {
	rows, err := w.Store.Snapshots(ctx, tenant)
	list := make([]innerdock.Snapshot, len(rows))
	for i, row := range rows {
		list[i] = w.shown(row)
	}
	return list, err
}

// DeleteSnapshot removes a tenant's snapshot. Who is being restored from it has
// opened its files.
func (w *Worker) DeleteSnapshot(ctx context.Context, tenant, id string) error {
	if _, err := w.Store.Snapshot(ctx, tenant, id); err != nil {
		return err
	}
	return w.removeSnapshot(ctx, id)
}

// removeSnapshot removes the files of a snapshot and then its row.
func (w *Worker) removeSnapshot(ctx context.Context, id string) error {
	for _, dir := range []string{durable.Draft(w.snapshotsDir(), id), w.snapshotDir(id)} {
		if err := os.RemoveAll(dir); err != nil {
			return innerdock.Internal(err, "removing a snapshot")
		}
	}
	return w.Store.DeleteSnapshot(ctx, id)
}

// planSnapshot makes rec what the snapshot that it asks for was taken of. What
// a restore cannot change may not be asked for.
func (w *Worker) planSnapshot(ctx context.Context, rec *store.Record) error {
	spec := rec.Spec
	if spec.Image != "" || spec.Disk != "" || spec.Docker != (innerdock.DockerSpec{}) {
		return innerdock.Errorf(innerdock.CodeInvalid, "snapshot: image, disk and docker are those of the snapshot; leave them out")
	}
	snap, err := w.Store.Snapshot(ctx, rec.Tenant, spec.Snapshot)
	if err != nil {
		return err
	}
	if snap.Build != w.build() {
		return innerdock.Errorf(innerdock.CodeUnsupported,
			"snapshot %s was taken with another version of innerdock or runsc, and only that can use it", snap.ID)
	}
	if rec.Spec.CPU == 0 {
		rec.CPU = min(snap.CPU, maxCPU())
	}
	if rec.Spec.Memory == "" {
		rec.Memory = snap.Memory
	}
	rec.Spec.Image, rec.Spec.Disk, rec.Spec.Docker = snap.Spec.Image, snap.Spec.Disk, snap.Spec.Docker
	if spec.AutoPause == 0 {
		rec.Spec.AutoPause = snap.Spec.AutoPause
	}
	if !spec.Network.Block && len(spec.Network.Allow) == 0 {
		rec.Spec.Network = snap.Spec.Network
	}
	rec.Disk, rec.Shape, rec.Image, rec.Moved = snap.Disk, snap.Shape, snap.Image, snap.Imported
	rec.Docker = innerdock.DockerStatus{State: innerdock.DockerDisabled, Profile: snap.Profile}
	if snap.Docker {
		rec.Docker.State = innerdock.DockerStarting
	}
	image, err := w.images.Get(ctx, rec.Image)
	if err != nil {
		return err
	}
	begin(rec, image)
	maps.Copy(rec.Env, snap.Env)
	maps.Copy(rec.Env, spec.Env)
	return checkEnv(rec.Env)
}

// Fork makes copies of a running sandbox, all or none. They have no name. It has
// succeeded when the row of its snapshot is gone: the copies of one whose row is
// still there are ended, here or by the next server.
func (w *Worker) Fork(ctx context.Context, tenant, idOrName string, count int) ([]innerdock.Sandbox, error) {
	if count < 1 || count > innerdock.MaxForks {
		return nil, innerdock.Errorf(innerdock.CodeInvalid, "count: %d is not between 1 and %d", count, innerdock.MaxForks)
	}
	snap, err := w.capture(ctx, tenant, idOrName, func(snap *store.Snapshot) { snap.Fork = true })
	if err != nil {
		return nil, err
	}
	copies, failures := make([]innerdock.Sandbox, count), make([]error, count)
	var over sync.WaitGroup
	for i := range count {
		over.Go(func() { copies[i], failures[i] = w.Create(ctx, tenant, innerdock.SandboxSpec{Snapshot: snap.ID}) })
	}
	over.Wait()
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	if err = errors.Join(failures...); err == nil {
		if err = w.removeSnapshot(undo, snap.ID); err == nil {
			return copies, nil
		}
	}
	for i, sandbox := range copies {
		if failures[i] == nil {
			_, failure := w.Terminate(undo, tenant, sandbox.ID, 0)
			err = errors.Join(err, failure)
		}
	}
	return nil, errors.Join(err, w.removeSnapshot(undo, snap.ID))
}
