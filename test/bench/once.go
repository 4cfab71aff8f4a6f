package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/runtime"
)

// atOnce is how many sandboxes are wanted in the same moment.
const atOnce = 10

// tenAtOnce measures sandboxes that are wanted in the same moment: warm, cold,
// restored by runsc alone, and from a pool.
func (b *bench) tenAtOnce(ctx context.Context) (err error) {
	rt, end, err := b.restorer(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	cold := b.warmSpec(true)
	cold.Env = map[string]string{"GODEBUG": ""} // dockerd would read it when it starts
	for range max(1, b.starts/4) {
		sandboxes, err := b.together(ctx, createDocker+", 10 at once", inside, b.warmSpec(true))
		if err != nil {
			return err
		}
		err = b.restoreTogether(ctx, rt, sandboxes[0].ID)
		if err := errors.Join(err, b.terminateAll(ctx, sandboxes)); err != nil {
			return err
		}
		if sandboxes, err = b.together(ctx, "create → Docker answers, cold, 10 at once", inside, cold); err != nil {
			return err
		}
		if err := b.terminateAll(ctx, sandboxes); err != nil {
			return err
		}
	}
	return nil
}

// together creates sandboxes with Docker in the same moment, and takes how long
// each was waited for, and all of them.
func (b *bench) together(ctx context.Context, name, where string, spec innerdock.SandboxSpec) ([]innerdock.Sandbox, error) {
	sandboxes := make([]innerdock.Sandbox, atOnce)
	took := make([]float64, atOnce)
	began := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for i := range sandboxes {
		group.Go(func() (err error) {
			if sandboxes[i], err = b.client.CreateSandbox(ctx, spec); err != nil {
				return err
			}
			_, err = b.client.WaitDocker(ctx, sandboxes[i].ID)
			took[i] = time.Since(began).Seconds()
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, errors.Join(err, b.terminateAll(context.WithoutCancel(ctx), sandboxes))
	}
	b.take("  of it: the last one of "+name, where, time.Since(began).Seconds())
	for _, seconds := range took {
		b.take(name, where, seconds)
	}
	return sandboxes, nil
}

// restoreTogether has runsc alone restore as many from the same template.
func (b *bench) restoreTogether(ctx context.Context, rt *runtime.Runsc, like string) error {
	took, err := b.restoreAtOnce(ctx, rt, like, b.template)
	for _, seconds := range took {
		b.take(createDocker+", 10 at once", bare, seconds)
	}
	return err
}

// restoreAtOnce has runsc alone restore ten sandboxes like another from a checkpoint
// in the same moment, and returns the seconds that each took.
func (b *bench) restoreAtOnce(ctx context.Context, rt *runtime.Runsc, like, checkpoint string) ([]float64, error) {
	var specs []runtime.Spec
	for range atOnce {
		spec, err := b.likeness(like)
		if err != nil {
			return nil, err
		}
		defer func() { _ = rt.Delete(context.WithoutCancel(ctx), spec.ID) }()
		specs = append(specs, spec)
	}
	took := make([]float64, atOnce)
	began := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for i, spec := range specs {
		group.Go(func() error {
			_, err := rt.Restore(ctx, spec, checkpoint)
			took[i] = time.Since(began).Seconds()
			return err
		})
	}
	return took, group.Wait()
}

func (b *bench) terminateAll(ctx context.Context, sandboxes []innerdock.Sandbox) error {
	var group errgroup.Group
	group.SetLimit(atOnce)
	for _, sandbox := range sandboxes {
		if sandbox.ID == "" {
			continue // it was not created
		}
		group.Go(func() error {
			if _, err := b.client.Terminate(ctx, sandbox.ID); err != nil {
				return fmt.Errorf("terminating %s: %w", sandbox.ID, err)
			}
			return nil
		})
	}
	return group.Wait()
}
