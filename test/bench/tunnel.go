package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/innerdock/innerdock/pkg/forward"
	"github.com/innerdock/innerdock/test/native"
)

// The sandbox's Docker from outside, as by DOCKER_HOST.
const (
	tunnelled = "tunnel" // as from another machine
	socketed  = "socket" // by the server's own Unix socket
)

// Figures that have targets.
const (
	sendContext  = "200 MB of build context"
	sendBuildKit = "200 MB of build context, BuildKit"
	buildSent    = "… and the whole build with its COPY"
	sendCopy     = "200 MB copied into a container"
)

// transferred is what BuildKit says when it has a context, after how many seconds.
var transferred = regexp.MustCompile(`transferring context: 2\d\d\.\d+MB ([0-9.]+)s done`)

// contextDir is where a place has the context for BuildKit.
const contextDir = "/tmp/context"

// tunnel measures how fast Docker takes what is large: in the sandbox, from
// outside, and natively.
func (b *bench) tunnel(ctx context.Context) error {
	probe, err := buildProbe(ctx)
	if err != nil {
		return err
	}
	return b.withNative(ctx, func(places []*place, host *native.Docker) error {
		for _, p := range places {
			if err := p.put(ctx, probePath, 0o755, bytes.NewReader(probe)); err != nil {
				return err
			}
			if _, err := p.shell(ctx, "mkdir "+contextDir+"; cd "+contextDir+"; printf 'FROM scratch\nCOPY large /\n' >Dockerfile; head -c 209715200 /dev/zero >large"); err != nil {
				return err
			}
		}
		outside, end, err := b.outside(places[0].id, probe, host)
		if err != nil {
			return err
		}
		err = b.sendAll(ctx, append(places, outside...))
		return errors.Join(err, end())
	})
}

func (b *bench) sendAll(ctx context.Context, places []*place) error {
	for range max(1, b.rounds/2) {
		for _, p := range places {
			if err := b.send(ctx, p); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	return nil
}

func (b *bench) send(ctx context.Context, p *place) error {
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
	if p.name == socketed { // where there is no docker
		return nil
	}
	began := time.Now()
	out, err = p.shell(ctx, "docker build --progress=plain -t sent "+contextDir+" 2>&1")
	if err != nil {
		return err
	}
	b.take(buildSent, p.name, time.Since(began).Seconds())
	sent := transferred.FindSubmatch(out)
	if sent == nil {
		return fmt.Errorf("the build does not tell when it had its context: %.500q", out)
	}
	took, err := strconv.ParseFloat(string(sent[1]), 64)
	if err != nil {
		return err
	}
	b.take(sendBuildKit, p.name, took)
	_, err = p.exec(ctx, "sh", "-ec", "docker rmi sent >/dev/null; docker builder prune -af >/dev/null")
	return err
}

// outside are the ways to the sandbox's Docker from this machine. With a native
// Docker, whose docker is that of the image, a tunnel is used by that as well.
func (b *bench) outside(id string, probe []byte, host *native.Docker) (places []*place, end func() error, err error) {
	dir, err := os.MkdirTemp("", "idk-tunnel-")
	if err != nil {
		return nil, nil, err
	}
	program := filepath.Join(dir, "probe")
	if err := os.WriteFile(program, probe, 0o755); err != nil {
		return nil, nil, err
	}
	by := func(socket string) func(context.Context, ...string) ([]byte, error) {
		return func(ctx context.Context, _ ...string) ([]byte, error) {
			return exec.CommandContext(ctx, program, "docker", socket).Output()
		}
	}
	if api, local := strings.CutPrefix(os.Getenv("INNERDOCK_HOST"), "unix://"); local {
		places = append(places, &place{name: socketed, exec: by(filepath.Join(filepath.Dir(api), "docker", id+".sock"))})
	}
	end = func() error { return os.RemoveAll(dir) }
	if host == nil {
		return places, end, nil
	}
	const inRoot = "/tmp/tunnel.sock"
	listener, err := net.Listen("unix", host.Path(inRoot))
	if err != nil {
		return nil, nil, errors.Join(err, end())
	}
	var forwarding sync.WaitGroup
	forwarding.Go(func() {
		forward.Docker(context.Background(), listener, func(ctx context.Context) (net.Conn, error) { return b.client.DialDocker(ctx, id) })
	})
	native := onHost(host)
	direct := by(host.Path(inRoot))
	places = append(places, &place{name: tunnelled, exec: func(ctx context.Context, args ...string) ([]byte, error) {
		if args[0] == probePath {
			return direct(ctx)
		}
		return native.exec(ctx, append([]string{"env", "DOCKER_HOST=unix://" + inRoot}, args...)...)
	}})
	return places, func() error {
		err := listener.Close()
		forwarding.Wait()
		return errors.Join(err, os.RemoveAll(dir))
	}, nil
}
