package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"github.com/innerdock/innerdock/pkg/forward"
)

// tunnelled is the sandbox's Docker from outside, as by DOCKER_HOST.
const tunnelled = "tunnel"

// Figures that have targets.
const (
	sendContext = "200 MB of build context"
	sendCopy    = "200 MB copied into a container"
)

// tunnel measures how fast Docker takes what is large: in the sandbox, from
// outside through a tunnel, and natively.
func (b *bench) tunnel(ctx context.Context) error {
	probe, err := buildProbe(ctx)
	if err != nil {
		return err
	}
	return b.with(ctx, func(places []*place) error {
		for _, p := range places {
			if err := p.put(ctx, probePath, 0o755, bytes.NewReader(probe)); err != nil {
				return err
			}
		}
		outside, err := b.outside(ctx, places[0].id, probe)
		if err != nil {
			return err
		}
		places = append(places, outside)
		for range max(1, b.rounds/2) {
			for _, p := range places {
				if err := b.measureSending(ctx, p); err != nil {
					return err
				}
			}
		}
		return outside.end(ctx)
	})
}

func (b *bench) measureSending(ctx context.Context, p *place) error {
	out, err := p.exec(ctx, probePath, "docker", "/run/docker.sock")
	if err != nil {
		return err
	}
	var seconds struct{ Context, Copy float64 }
	if err := json.Unmarshal(out, &seconds); err != nil {
		return fmt.Errorf("the probe says %.200q: %w", out, err)
	}
	b.take(sendContext, p.name, seconds.Context)
	b.take(sendCopy, p.name, seconds.Copy)
	return nil
}

// outside is this machine as a place where the sandbox's Docker is used. Its
// Docker is always on the socket that is forwarded.
func (b *bench) outside(ctx context.Context, id string, probe []byte) (*place, error) {
	dir, err := os.MkdirTemp("", "idk-tunnel-")
	if err != nil {
		return nil, err
	}
	program, socket := filepath.Join(dir, "probe"), filepath.Join(dir, "docker.sock")
	if err := os.WriteFile(program, probe, 0o755); err != nil {
		return nil, err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	var forwarding sync.WaitGroup
	forwarding.Go(func() {
		forward.Docker(ctx, listener, func(ctx context.Context) (net.Conn, error) { return b.client.DialDocker(ctx, id) })
	})
	return &place{
		name: tunnelled,
		exec: func(ctx context.Context, args ...string) ([]byte, error) {
			return exec.CommandContext(ctx, program, "docker", socket).Output()
		},
		end: func(context.Context) error {
			err := listener.Close()
			forwarding.Wait()
			_ = os.RemoveAll(dir)
			return err
		},
	}, nil
}
