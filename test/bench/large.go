package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/runtime"
)

// holdings make a sandbox hold so many megabytes that nothing compresses, and then
// make /tmp/holds.
var holdings = []struct{ where, script string }{
	{"memory", `setsid python3 -c '
import os, time
held = [os.urandom(1000000) for _ in range(%d)]
open("/tmp/holds", "w").close()
time.sleep(1e9)' >/dev/null 2>&1 </dev/null &`},
	{"files", `head -c %d000000 /dev/urandom >/var/lib/docker/held; touch /tmp/holds`},
}

// large measures starts from checkpoints that hold much, in the memory of a program
// or in files, beside a Docker that runs: by the server, and by runsc alone, by turns.
// It needs the server's data directory. What the server restores is a snapshot: the sandbox
// that a template is made of holds nothing but Docker.
func (b *bench) large(ctx context.Context) (err error) {
	rt, end, err := b.runsc(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	for _, h := range holdings {
		if err := b.largeStarts(ctx, rt, h.where, fmt.Sprintf(h.script, b.largest)); err != nil {
			return fmt.Errorf("%s: %w", h.where, err)
		}
	}
	return nil
}

func (b *bench) largeStarts(ctx context.Context, rt *runtime.Runsc, where, script string) (err error) {
	spec := b.warmSpec(true)
	spec.Memory = "4Gi"
	first, err := b.client.CreateSandbox(ctx, spec)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.terminateAll(context.WithoutCancel(ctx), []innerdock.Sandbox{first})) }()
	if _, err := b.in(first.ID).shell(ctx, script+"\nuntil test -e /tmp/holds; do sleep 0.2; done"); err != nil {
		return err
	}
	snapshot, err := b.client.Snapshot(ctx, first.ID, innerdock.SnapshotSpec{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.client.DeleteSnapshot(context.WithoutCancel(ctx), snapshot.ID)) }()
	name := fmt.Sprintf("create → Docker answers, %d MB in %s", b.largest, where)
	b.note("checkpoint with "+where, "MB", inside, float64(snapshot.Size)/1e6)
	checkpoint := filepath.Join(b.data, "snapshots", snapshot.ID)
	for range b.starts {
		if err := b.largeStart(ctx, name, snapshot.ID); err != nil {
			return err
		}
		if err := b.bareRestore(ctx, rt, name, first.ID, checkpoint); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) largeStart(ctx context.Context, name, snapshot string) error {
	began := time.Now()
	sandbox, err := b.client.CreateSandbox(ctx, innerdock.SandboxSpec{Snapshot: snapshot})
	if err != nil {
		return err
	}
	_, err = b.client.WaitDocker(ctx, sandbox.ID)
	b.take(name, inside, time.Since(began).Seconds())
	_, failure := b.client.Terminate(context.WithoutCancel(ctx), sandbox.ID)
	return errors.Join(err, failure)
}
