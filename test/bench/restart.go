package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/innerdock/innerdock"
)

// restarted is how long Docker is away, as a client sees it that calls at once.
const restarted = "%s killed → docker run has ended"

// restarts kills Docker's daemons, each in a sandbox of its own: one that dies again
// and again is started ever later.
func (b *bench) restarts(ctx context.Context) error {
	for range max(1, b.rounds/2) {
		for _, daemon := range []string{"dockerd", "containerd"} {
			if err := b.restart(ctx, daemon); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bench) restart(ctx context.Context, daemon string) (err error) {
	p, err := b.sandbox(ctx, innerdock.ProfileFull)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.end(ctx)) }()
	const run = "docker run --rm hello-world"
	if _, err := p.shell(ctx, run); err != nil { // it is pulled
		return err
	}
	if _, err := p.shell(ctx, "kill -9 $(pidof "+daemon+")"); err != nil {
		return err
	}
	began := time.Now()
	if _, err := p.shell(ctx, run); err != nil {
		return err
	}
	b.take(fmt.Sprintf(restarted, daemon), inside, time.Since(began).Seconds())
	return nil
}
