package main

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/runtime"
)

// Figures of forks; the first has a target.
const (
	forkAll     = "fork into 10 → all run"
	forkDocker  = "fork into 10 → Docker of all answers"
	forkRestore = "10 checkpoints of it restored at once"
	snapshotOne = "snapshot of it"
)

// forks measures copies of a sandbox in which Docker runs, and runsc alone that
// restores as many checkpoints of it at once, by turns. It needs the server's data
// directory.
func (b *bench) forks(ctx context.Context) (err error) {
	rt, end, err := b.runsc(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	first, err := b.client.CreateSandbox(ctx, b.warmSpec(true))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.terminateAll(context.WithoutCancel(ctx), []innerdock.Sandbox{first})) }()
	if _, err := b.client.WaitDocker(ctx, first.ID); err != nil {
		return err
	}
	for range min(b.starts, 5) {
		if err := b.fork(ctx, first.ID); err != nil {
			return err
		}
		if err := b.restoreMany(ctx, rt, first.ID); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) fork(ctx context.Context, id string) (err error) {
	began := time.Now()
	copies, err := b.client.Fork(ctx, id, atOnce)
	if err != nil {
		return err
	}
	b.take(forkAll, inside, time.Since(began).Seconds())
	defer func() { err = errors.Join(err, b.terminateAll(context.WithoutCancel(ctx), copies)) }()
	for _, sandbox := range copies {
		for phase, seconds := range sandbox.Timings {
			b.take("  of one: "+phase, inside, seconds)
		}
		if _, err := b.client.WaitDocker(ctx, sandbox.ID); err != nil {
			return err
		}
	}
	b.take(forkDocker, inside, time.Since(began).Seconds())
	return nil
}

// restoreMany takes a snapshot as users do, and restores it without the server.
func (b *bench) restoreMany(ctx context.Context, rt *runtime.Runsc, id string) (err error) {
	began := time.Now()
	snapshot, err := b.client.Snapshot(ctx, id, innerdock.SnapshotSpec{})
	if err != nil {
		return err
	}
	b.take(snapshotOne, inside, time.Since(began).Seconds())
	b.note("size of it", "MiB", inside, float64(snapshot.Size>>20))
	defer func() { err = errors.Join(err, b.client.DeleteSnapshot(context.WithoutCancel(ctx), snapshot.ID)) }()
	took, err := b.restoreAtOnce(ctx, rt, id, filepath.Join(b.data, "snapshots", snapshot.ID))
	if err != nil {
		return err
	}
	b.take(forkRestore, bare, slices.Max(took))
	return nil
}
