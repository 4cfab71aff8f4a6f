package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/innerdock/innerdock"
)

// Figures that have targets.
const (
	buildTen = "docker build, 10 steps on 500 MB"
	runThree = "3 × docker run of the result"
)

// builds measures a build on a large base and containers of what it makes, also
// in profile minimal, where each layer is a copy of the one below.
func (b *bench) builds(ctx context.Context) error {
	return b.with(ctx, func(places []*place) (err error) {
		copying, err := b.sandbox(ctx, innerdock.ProfileMinimal)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, copying.end(ctx)) }()
		places = append(places, copying)
		for _, p := range places {
			if err := b.layBase(ctx, p); err != nil {
				return err
			}
			if err := p.put(ctx, "/tmp/build/Dockerfile", 0o644, strings.NewReader(tenSteps())); err != nil {
				return err
			}
		}
		for round := range max(1, b.rounds/3) {
			for _, p := range places {
				if p == copying && round > 0 {
					continue // it takes minutes
				}
				if err := b.build(ctx, p); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// build measures one build without a cache, and the containers. Profile minimal
// has no network but its host's.
func (b *bench) build(ctx context.Context, p *place) error {
	network := "default"
	if p.name == minimal {
		network = "host"
	}
	seconds, err := p.timed(ctx, "docker", "build", "-q", "--no-cache", "--network", network, "-t", "built", "/tmp/build")
	if err != nil {
		return err
	}
	b.take(buildTen, p.name, seconds)
	seconds, err = p.timed(ctx, "sh", "-ec",
		"for i in 1 2 3; do docker run --rm --network "+strings.Replace(network, "default", "bridge", 1)+" built true; done")
	if err != nil {
		return err
	}
	b.take(runThree, p.name, seconds)
	_, err = p.shell(ctx, "docker rmi built >/dev/null; docker builder prune -af >/dev/null")
	return err
}

// tenSteps is a Dockerfile whose steps write new files and change some of the base.
func tenSteps() string {
	var text strings.Builder
	text.WriteString("FROM base\n")
	for i := range 10 {
		fmt.Fprintf(&text, "RUN mkdir /step%d && for f in /opt/base/%03d/*; do cp $f /step%d/; done && rm /opt/base/%03d/*0\n", i, i, i, 100+i)
	}
	return text.String()
}
