package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/wire"
	"github.com/innerdock/innerdock/pkg/runtime"
	"github.com/innerdock/innerdock/pkg/worker/home"
)

// What warm starts are compared with: runsc alone that restores the same
// checkpoint, and what users did before.
const (
	bare    = "runsc restore"
	seedWay = "3 s, minimal, polls"
)

// Figures that have targets.
const (
	createDocker = "create → Docker answers, warm"
	createExec   = "create → first exec, without Docker"
	createPs     = "create → first docker ps, warm"
	poolExec     = "create from a pool → first exec"
	poolPs       = "create from a pool → first docker ps"
)

// warm measures what templates are for, and what they are compared with, by turns. It
// needs the server's data directory.
func (b *bench) warm(ctx context.Context) (err error) {
	rt, end, err := b.restorer(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	plain := filepath.Join(b.scratch, "plain")
	if err := b.checkpointPlain(ctx, rt, plain); err != nil {
		return err
	}
	for range b.starts {
		if err := errors.Join(b.warmStart(ctx, rt), b.plainStart(ctx, rt, plain)); err != nil {
			return err
		}
	}
	for range min(b.starts, 3) { // 5 s each
		if err := b.asTheSeed(ctx, rt); err != nil {
			return err
		}
	}
	return nil
}

// restorer is runsc beside a server that has a template of sandboxes with Docker.
func (b *bench) restorer(ctx context.Context) (rt *runtime.Runsc, end func() error, err error) {
	if rt, end, err = b.runsc(ctx); err != nil {
		return nil, nil, err
	}
	template, err := b.client.CreateTemplate(ctx, innerdock.TemplateSpec{Image: b.image.ID})
	if err != nil {
		return nil, nil, errors.Join(err, end())
	}
	b.template = filepath.Join(b.data, "templates", template.ID)
	b.note("template", "MB", inside, float64(template.Size)/1e6)
	return rt, end, nil
}

// runsc has a root of its own, until end is called. Templates and the likes of
// sandboxes are found in the server's data directory.
func (b *bench) runsc(ctx context.Context) (rt *runtime.Runsc, end func() error, err error) {
	if b.data == "" {
		return nil, nil, errors.New("-data is missing: the server's --data directory")
	}
	root, err := os.MkdirTemp("/var/tmp", "idk-bench-")
	if err != nil {
		return nil, nil, err
	}
	b.scratch = root
	if rt, err = runtime.NewRunsc(ctx, runtime.RunscConfig{Path: b.runscPath, Root: filepath.Join(root, "runsc")}); err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(root))
	}
	return rt, func() error { return errors.Join(rt.Close(context.WithoutCancel(ctx)), os.RemoveAll(root)) }, nil
}

func (b *bench) warmSpec(docker bool) innerdock.SandboxSpec {
	if docker {
		return innerdock.SandboxSpec{Image: b.image.ID, Docker: innerdock.DockerSpec{Enabled: true}}
	}
	return innerdock.SandboxSpec{Image: b.plain.ID}
}

// warmStart measures one start by the server and then one by runsc alone.
func (b *bench) warmStart(ctx context.Context, rt *runtime.Runsc) error {
	before, err := serverCPU()
	if err != nil {
		return err
	}
	began := time.Now()
	sandbox, err := b.client.CreateSandbox(ctx, b.warmSpec(true))
	if err != nil {
		return err
	}
	defer func() { _, _ = b.client.Terminate(context.WithoutCancel(ctx), sandbox.ID) }()
	if _, err := b.client.WaitDocker(ctx, sandbox.ID); err != nil {
		return err
	}
	total := time.Since(began).Seconds()
	b.take(createDocker, inside, total)
	after, err := serverCPU()
	if err != nil {
		return err
	}
	rest := total
	for phase, seconds := range sandbox.Timings {
		b.take("  of it: "+phase, inside, seconds)
		rest -= seconds
	}
	b.take("  of it: Docker's networks, requests and store", inside, rest)
	b.take("  CPU time in it: server", inside, after.own-before.own)
	b.take("  CPU time in it: runsc's commands", inside, after.programs-before.programs)
	if _, err := b.in(sandbox.ID).exec(ctx, "docker", "ps"); err != nil {
		return err
	}
	b.take(createPs, inside, time.Since(began).Seconds())
	if sandbox.Start != innerdock.StartWarm {
		return fmt.Errorf("sandbox %s was started %s", sandbox.ID, sandbox.Start)
	}
	return b.bareRestore(ctx, rt, createDocker, sandbox.ID, b.template)
}

// plainStart measures one start without Docker, and a restore of the same.
func (b *bench) plainStart(ctx context.Context, rt *runtime.Runsc, checkpoint string) error {
	began := time.Now()
	sandbox, err := b.client.CreateSandbox(ctx, b.warmSpec(false))
	if err != nil {
		return err
	}
	defer func() { _, _ = b.client.Terminate(context.WithoutCancel(ctx), sandbox.ID) }()
	if _, err := b.in(sandbox.ID).exec(ctx, "true"); err != nil {
		return err
	}
	b.take(createExec, inside, time.Since(began).Seconds())
	return b.bareRestore(ctx, rt, createExec, sandbox.ID, checkpoint)
}

// bareRestore measures runsc alone that restores a sandbox like another.
func (b *bench) bareRestore(ctx context.Context, rt *runtime.Runsc, name, like, checkpoint string) error {
	spec, err := b.likeness(like)
	if err != nil {
		return err
	}
	defer func() { _ = rt.Delete(context.WithoutCancel(ctx), spec.ID) }()
	began := time.Now()
	if _, err := rt.Restore(ctx, spec, checkpoint); err != nil {
		return err
	}
	b.take(name, bare, time.Since(began).Seconds())
	return nil
}

// checkpointPlain writes the checkpoint of a sandbox without Docker that has
// just come to rest: the server makes none.
func (b *bench) checkpointPlain(ctx context.Context, rt *runtime.Runsc, dir string) error {
	plain, err := b.byHand(ctx, rt, false)
	if err != nil {
		return err
	}
	defer plain.end()
	if _, err := plain.ask(ctx, wire.PathFreeze, nil); err != nil {
		return err
	}
	return rt.Checkpoint(ctx, plain.id, dir, runtime.End)
}

// likeness describes a sandbox that can be restored from the template of another.
func (b *bench) likeness(id string) (runtime.Spec, error) {
	text, err := os.ReadFile(filepath.Join(b.data, "sandboxes", id, "bundle", "config.json"))
	if err != nil {
		return runtime.Spec{}, err
	}
	var config specs.Spec
	if err := json.Unmarshal(text, &config); err != nil {
		return runtime.Spec{}, err
	}
	b.serial++
	own := filepath.Join(b.scratch, strconv.Itoa(b.serial))
	s := runtime.Spec{
		ID:     "bench" + strings.Repeat("a", 7-len(strconv.Itoa(b.serial))) + strings.NewReplacer("0", "b", "1", "c", "8", "d", "9", "e").Replace(strconv.Itoa(b.serial)),
		Rootfs: config.Annotations["dev.gvisor.spec.rootfs.source"], Args: config.Process.Args,
		ScratchDir: strings.TrimPrefix(config.Annotations["dev.gvisor.spec.rootfs.overlay"], "dir="),
		CPU:        1, Memory: *config.Linux.Resources.Memory.Limit, PIDs: 16384,
		ControlDir: filepath.Join(own, "control"), BundleDir: filepath.Join(own, "bundle"),
	}
	if s.Disk, err = strconv.ParseInt(strings.TrimPrefix(config.Annotations["dev.gvisor.spec.rootfs.options"], "size="), 10, 64); err != nil {
		return runtime.Spec{}, err
	}
	for _, m := range config.Mounts {
		switch m.Destination {
		case wire.AgentDir:
			s.AgentDir = m.Source
		case "/var/lib/docker":
			s.Docker, s.DockerDir = true, filepath.Join(own, "docker")
		}
	}
	return s, os.MkdirAll(s.ControlDir, 0o700)
}

// byHand is a sandbox without the server.
type byHand struct {
	id    string
	began time.Time
	agent *http.Client
	end   func()
}

// byHand starts a sandbox without the server, and ends it with the one that is
// returned.
func (b *bench) byHand(ctx context.Context, rt *runtime.Runsc, docker bool) (*byHand, error) {
	sandbox, err := b.client.CreateSandbox(ctx, b.warmSpec(docker)) // to look like it
	if err != nil {
		return nil, err
	}
	spec, err := b.likeness(sandbox.ID)
	_, failure := b.client.Terminate(ctx, sandbox.ID)
	if err := errors.Join(err, failure); err != nil {
		return nil, err
	}
	spec.Hostname = "by-hand"
	h, err := home.Listen(spec.ControlDir, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	s := &byHand{id: spec.ID, began: time.Now(), agent: h.Client()}
	s.end = func() {
		_ = rt.Delete(context.WithoutCancel(ctx), spec.ID)
		s.agent.CloseIdleConnections()
		h.Close()
	}
	_, err = rt.Create(ctx, spec)
	if err == nil {
		err = rt.Start(ctx, spec.ID)
	}
	if err == nil {
		_, err = s.ask(ctx, wire.PathConfigure, wire.Configuration{Hostname: spec.Hostname})
	}
	if err != nil {
		s.end()
	}
	return s, err
}

// ask makes a request to the agent that must succeed.
func (s *byHand) ask(ctx context.Context, path string, body any) ([]byte, error) {
	content, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent"+path, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	response, err := s.agent.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %s: %s", path, response.Status, text)
	}
	return text, err
}

// asTheSeed starts a sandbox, waits 3 s, starts dockerd with the five flags of
// profile minimal, and asks it once a second whether it is ready.
func (b *bench) asTheSeed(ctx context.Context, rt *runtime.Runsc) error {
	seed, err := b.byHand(ctx, rt, true)
	if err != nil {
		return err
	}
	defer seed.end()
	time.Sleep(3 * time.Second)
	starting, cancel := context.WithCancel(ctx)
	var following sync.WaitGroup
	following.Go(func() { // that it fails is seen by the polls
		_, _ = seed.ask(starting, wire.PathDockerStart, wire.DockerStart{Profile: innerdock.ProfileMinimal, Address: "127.0.0.1", MTU: 1500})
	})
	defer following.Wait()
	defer cancel()
	for range 30 {
		text, err := seed.ask(ctx, "/processes?wait=true", innerdock.ProcessSpec{Args: []string{"docker", "info"}})
		var process innerdock.Process
		if err := cmp.Or(err, json.Unmarshal(text, &process)); err != nil {
			return err
		}
		if process.ExitCode != nil && *process.ExitCode == 0 {
			b.take(createDocker, seedWay, time.Since(seed.began).Seconds())
			return nil
		}
		time.Sleep(time.Second)
	}
	return errors.New("no answer from Docker in 30 polls")
}

// fromPool measures sandboxes that wait.
func (b *bench) fromPool(ctx context.Context) (err error) {
	pool, err := b.client.CreatePool(ctx, innerdock.PoolSpec{Image: b.image.ID, Size: b.starts, Docker: innerdock.DockerSpec{Enabled: true}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.client.DeletePool(context.WithoutCancel(ctx), pool.ID)) }()
	for i := range 2 * b.starts {
		if i%b.starts == 0 {
			if err := b.filled(ctx, pool); err != nil {
				return err
			}
		}
		began := time.Now()
		sandbox, err := b.client.CreateSandbox(ctx, b.warmSpec(true))
		if err != nil {
			return err
		}
		name, args := poolExec, []string{"true"}
		if i >= b.starts {
			name, args = poolPs, []string{"docker", "ps"}
		}
		_, err = b.in(sandbox.ID).exec(ctx, args...)
		b.take(name, inside, time.Since(began).Seconds())
		if sandbox.Start != innerdock.StartPool {
			err = errors.Join(err, fmt.Errorf("it was started %s", sandbox.Start))
		}
		_, failure := b.client.Terminate(ctx, sandbox.ID)
		if err := errors.Join(err, failure); err != nil {
			return err
		}
	}
	return nil
}

// filled waits until the pool is full.
func (b *bench) filled(ctx context.Context, want innerdock.Pool) error {
	for range 600 {
		pools, err := b.client.Pools(ctx)
		if err != nil {
			return err
		}
		for _, p := range pools {
			if p.ID == want.ID && p.Ready == p.Size {
				return nil
			}
		}
		time.Sleep(200 * time.Millisecond) // nothing tells of it
	}
	return errors.New("the pool is not filled")
}
