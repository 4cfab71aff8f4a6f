package main

import (
	"context"
	"errors"
	"time"

	"github.com/innerdock/innerdock"
)

// start measures sandboxes from the request until they are of use, and their end:
// the first ones start cold, and the others warm once there are templates.
func (b *bench) start(ctx context.Context) error {
	for range b.starts {
		if err := errors.Join(b.startPlain(ctx), b.startDocker(ctx)); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) startPlain(ctx context.Context) error {
	began := time.Now()
	sandbox, err := b.client.CreateSandbox(ctx, innerdock.SandboxSpec{Image: b.plain.ID})
	if err != nil {
		return err
	}
	how := ", " + string(sandbox.Start)
	b.take("create"+how, inside, time.Since(began).Seconds())
	_, err = b.in(sandbox.ID).exec(ctx, "true")
	b.take("create → first exec"+how, inside, time.Since(began).Seconds())
	for _, phase := range []string{"network", "runtime", "agent"} {
		b.take("  of create: "+phase+how, inside, sandbox.Timings[phase])
	}
	began = time.Now()
	_, failure := b.client.Terminate(ctx, sandbox.ID)
	b.take("terminate", inside, time.Since(began).Seconds())
	return errors.Join(err, failure)
}

func (b *bench) startDocker(ctx context.Context) error {
	began := time.Now()
	sandbox, err := b.createWithDocker(ctx, innerdock.ProfileFull)
	if err != nil {
		return err
	}
	b.take("create → Docker ready, "+string(sandbox.Start), inside, time.Since(began).Seconds())
	began = time.Now()
	_, err = b.client.Terminate(ctx, sandbox.ID)
	b.take("terminate, with Docker", inside, time.Since(began).Seconds())
	return err
}

// createWithDocker returns when Docker answers.
func (b *bench) createWithDocker(ctx context.Context, profile innerdock.DockerProfile) (innerdock.Sandbox, error) {
	sandbox, err := b.client.CreateSandbox(ctx, innerdock.SandboxSpec{
		Image: b.image.ID, CPU: 2, Memory: "4Gi", Disk: "20Gi",
		Docker: innerdock.DockerSpec{Enabled: true, Profile: profile},
	})
	if err != nil {
		return sandbox, err
	}
	_, err = b.client.WaitDocker(ctx, sandbox.ID)
	return sandbox, err
}
