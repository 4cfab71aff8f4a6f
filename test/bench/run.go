package main

import (
	"context"
	"time"
)

// Figures that have targets.
const (
	runOnBridge = "docker run --rm hello-world, bridge"
	runOnHost   = "docker run --rm hello-world, host network"
)

// commands measures what is short: requests to the agent, processes, and
// Docker's own short commands.
func (b *bench) commands(ctx context.Context) error {
	return b.with(ctx, func(places []*place) error {
		if err := b.share(ctx, places, "busybox"); err != nil {
			return err
		}
		for _, p := range places {
			if _, err := p.exec(ctx, "docker", "run", "-d", "--name", "idle", "busybox", "sleep", "86400"); err != nil {
				return err
			}
		}
		for range 3 * b.rounds {
			began := time.Now()
			if _, err := b.client.Sandboxes(ctx, false); err != nil {
				return err
			}
			b.take("request to the server", inside, time.Since(began).Seconds())
			began = time.Now()
			if _, err := b.client.Processes(ctx, places[0].id); err != nil {
				return err
			}
			b.take("request to the agent", inside, time.Since(began).Seconds())
			for _, p := range places {
				for _, c := range []struct {
					name string
					args []string
				}{
					{"exec true", []string{"true"}},
					{"docker ps", []string{"docker", "ps"}},
					{"docker exec", []string{"docker", "exec", "idle", "true"}},
				} {
					seconds, err := p.timed(ctx, c.args...)
					if err != nil {
						return err
					}
					b.take(c.name, p.name, seconds)
				}
			}
		}
		return nil
	})
}

// containers measures the smallest container from the command to its end.
func (b *bench) containers(ctx context.Context) error {
	return b.with(ctx, func(places []*place) error {
		if err := b.share(ctx, places, "hello-world"); err != nil {
			return err
		}
		for range b.rounds {
			for figure, network := range map[string]string{runOnBridge: "bridge", runOnHost: "host"} {
				for _, p := range places {
					seconds, err := p.timed(ctx, "docker", "run", "--rm", "--network", network, "hello-world")
					if err != nil {
						return err
					}
					b.take(figure, p.name, seconds)
				}
			}
		}
		return nil
	})
}
