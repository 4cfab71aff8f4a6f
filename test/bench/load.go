package main

import (
	"bytes"
	"context"
	"fmt"
)

// Figures that have targets.
const (
	importBase = "docker import of 500 MB"
	loadBase   = "docker load of 500 MB"
)

// loads measures how an image comes from a file.
func (b *bench) loads(ctx context.Context) error {
	return b.with(ctx, func(places []*place) error {
		for _, p := range places {
			if err := b.layBase(ctx, p); err != nil {
				return err
			}
			if _, err := p.shell(ctx, "docker save -o /tmp/saved.tar base"); err != nil {
				return err
			}
		}
		for range max(1, b.rounds/3) {
			for _, p := range places {
				if _, err := p.shell(ctx, "docker rmi base >/dev/null"); err != nil {
					return err
				}
				seconds, err := p.timed(ctx, "docker", "import", baseTar, "base")
				if err != nil {
					return err
				}
				b.take(importBase, p.name, seconds)
				if _, err := p.shell(ctx, "docker rmi base >/dev/null"); err != nil {
					return err
				}
				if seconds, err = p.timed(ctx, "docker", "load", "-q", "-i", "/tmp/saved.tar"); err != nil {
					return err
				}
				b.take(loadBase, p.name, seconds)
			}
		}
		return nil
	})
}

// share pulls an image in the first place, which is a sandbox, and gives it to
// the others, which may have no way to a registry.
func (b *bench) share(ctx context.Context, places []*place, image string) error {
	if _, err := places[0].exec(ctx, "docker", "pull", "-q", image); err != nil {
		return err
	}
	if len(places) == 1 {
		return nil
	}
	archive, err := places[0].exec(ctx, "docker", "save", image)
	if err != nil {
		return err
	}
	for _, p := range places[1:] {
		if err := p.put(ctx, "/tmp/shared.tar", 0o644, bytes.NewReader(archive)); err != nil {
			return err
		}
		if _, err := p.exec(ctx, "docker", "load", "-q", "-i", "/tmp/shared.tar"); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}
