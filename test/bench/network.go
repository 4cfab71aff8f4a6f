package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

const probePath = "/tmp/probe"

// network measures TCP between two containers of a network, and from outside
// the containers to a published port.
func (b *bench) network(ctx context.Context) error {
	probe, err := buildProbe(ctx)
	if err != nil {
		return err
	}
	image, err := imageOf(probe)
	if err != nil {
		return err
	}
	return b.with(ctx, func(places []*place) error {
		for _, p := range places {
			if err := p.put(ctx, probePath, 0o755, bytes.NewReader(probe)); err != nil {
				return err
			}
			if err := p.put(ctx, "/tmp/probe.tar", 0o644, bytes.NewReader(image)); err != nil {
				return err
			}
			if _, err := p.shell(ctx, `docker import /tmp/probe.tar probe
				docker network create bench
				docker run -d --name server --network bench -p 9000:9000 probe /probe serve :9000`); err != nil {
				return err
			}
		}
		for range max(1, b.rounds/2) {
			for _, p := range places {
				if err := b.measureNetwork(ctx, p, "container to container",
					"docker", "run", "--rm", "--network", "bench", "probe", "/probe", "measure", "server:9000"); err != nil {
					return err
				}
				if err := b.measureNetwork(ctx, p, "to a published port", probePath, "measure", "127.0.0.1:9000"); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (b *bench) measureNetwork(ctx context.Context, p *place, name string, args ...string) error {
	out, err := p.exec(ctx, args...)
	if err != nil {
		return err
	}
	var result struct{ Rate, Latency float64 } // bytes a second, seconds
	if err := json.Unmarshal(out, &result); err != nil {
		return fmt.Errorf("%s: %w: %.200q", name, err, out)
	}
	b.note(name+", throughput", "MB/s", p.name, result.Rate/1e6)
	b.note(name+", p50 latency", "µs", p.name, result.Latency*1e6)
	return nil
}

// buildProbe returns the program that measures.
func buildProbe(ctx context.Context) ([]byte, error) {
	dir, err := os.MkdirTemp("", "idk-probe-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "probe")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/innerdock/innerdock/test/bench/probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the probe: %w: %s", err, out)
	}
	return os.ReadFile(path)
}

// imageOf is a tar for docker import with one program.
func imageOf(program []byte) ([]byte, error) {
	var buffer bytes.Buffer
	out := tar.NewWriter(&buffer)
	if err := out.WriteHeader(&tar.Header{Name: "probe", Mode: 0o755, Size: int64(len(program)), Typeflag: tar.TypeReg}); err != nil {
		return nil, err
	}
	if _, err := out.Write(program); err != nil {
		return nil, err
	}
	err := out.Close()
	return buffer.Bytes(), err
}
