package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/test/native"
)

// The names of places in the tables.
const (
	inside  = "inside"
	onOwn   = "native"
	minimal = "minimal"
)

// place is somewhere that Docker runs.
type place struct {
	name string
	id   string                                                    // of its sandbox
	exec func(ctx context.Context, args ...string) ([]byte, error) // must succeed; returns stdout
	put  func(ctx context.Context, path string, mode os.FileMode, content io.Reader) error
	end  func(ctx context.Context) error
}

// shell runs a script that must succeed and returns what it prints.
func (p *place) shell(ctx context.Context, script string) ([]byte, error) {
	return p.exec(ctx, "sh", "-ec", script)
}

// timed returns how many seconds a command takes that must succeed.
func (p *place) timed(ctx context.Context, args ...string) (float64, error) {
	began := time.Now()
	_, err := p.exec(ctx, args...)
	return time.Since(began).Seconds(), err
}

// onHost is Docker on the host's kernel.
func onHost(docker *native.Docker) *place {
	return &place{
		name: onOwn,
		exec: func(ctx context.Context, args ...string) ([]byte, error) {
			var stdout, stderr bytes.Buffer
			cmd := docker.Command(ctx, args...)
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := cmd.Run(); err != nil {
				return nil, fmt.Errorf("native %.200q: %w: %s", args, err, stderr.String())
			}
			return stdout.Bytes(), nil
		},
		put: func(_ context.Context, path string, mode os.FileMode, content io.Reader) error {
			path = docker.Path(path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
			file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
			if err != nil {
				return err
			}
			_, err = io.Copy(file, content)
			if failure := file.Close(); err == nil {
				err = failure
			}
			return err
		},
		end: func(context.Context) error { return docker.Stop() },
	}
}

// sandbox is Docker in a new sandbox, ready.
func (b *bench) sandbox(ctx context.Context, profile innerdock.DockerProfile) (*place, error) {
	sandbox, err := b.createWithDocker(ctx, profile)
	if err != nil {
		return nil, err
	}
	p := b.in(sandbox.ID)
	if profile == innerdock.ProfileMinimal {
		p.name = minimal
	}
	return p, nil
}

// in is a sandbox as a place.
func (b *bench) in(id string) *place {
	return &place{
		name: inside, id: id,
		exec: func(ctx context.Context, args ...string) ([]byte, error) {
			var stdout, stderr bytes.Buffer
			process, err := b.client.Exec(ctx, id, innerdock.ProcessSpec{Args: args}, innerdock.Streams{Stdout: &stdout, Stderr: &stderr})
			if err == nil && *process.ExitCode != 0 {
				err = fmt.Errorf("%.200q ended with %d: %s", args, *process.ExitCode, stderr.String())
			}
			return stdout.Bytes(), err
		},
		put: func(ctx context.Context, path string, mode os.FileMode, content io.Reader) error {
			_, err := b.client.WriteFile(ctx, id, path, uint32(mode.Perm()), content)
			return err
		},
		end: func(ctx context.Context) error {
			_, err := b.client.Terminate(context.WithoutCancel(ctx), id)
			return err
		},
	}
}
