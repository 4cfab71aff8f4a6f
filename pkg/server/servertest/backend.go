// Package servertest has what a server needs to be tested: sandboxes that are
// directories of this machine with the real agent in this process, images that
// are names, and keys in memory. Nothing in it is isolated from the host.
package servertest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent"
	"github.com/innerdock/innerdock/pkg/agent/wire"
	"github.com/innerdock/innerdock/pkg/worker/home"
)

// Backend has sandboxes, see the package. It is a server.Backend.
type Backend struct {
	// Docker is the state that Docker of a sandbox comes to; nil is ready.
	Docker func(innerdock.SandboxSpec) innerdock.DockerStatus

	t       testing.TB
	mu      sync.Mutex
	last    int
	all     map[string]*sandbox
	created func(context.Context)
}

type sandbox struct {
	innerdock.Sandbox
	tenant string
	dir    string
	ended  chan struct{}
	home   *home.Home
	stop   func()
}

// NewBackend makes a backend whose agents end with the test.
func NewBackend(t testing.TB) *Backend {
	b := &Backend{t: t, all: map[string]*sandbox{}}
	t.Cleanup(func() {
		for _, s := range b.all {
			s.stop()
		}
	})
	return b
}

// OnCreate has Create call created, with its own context, before it returns.
func (b *Backend) OnCreate(created func(context.Context)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.created = created
}

// DockerdSocket is where the agent of a sandbox finds a Docker daemon in Dir, if a
// test has made one.
const DockerdSocket = "dockerd.sock"

// Dir is the directory that a sandbox sees files under: /workspace is in it.
func (b *Backend) Dir(id string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all[id].dir
}

// Live is the number of sandboxes that have not ended.
func (b *Backend) Live() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, s := range b.all {
		if !s.State.Ended() {
			n++
		}
	}
	return n
}

// Cut breaks the connection to a sandbox's agent, which dials again.
func (b *Backend) Cut(id string) {
	b.mu.Lock()
	s := b.all[id]
	b.mu.Unlock()
	s.home.Hangup()
}

// Create starts an agent.
func (b *Backend) Create(ctx context.Context, tenant string, spec innerdock.SandboxSpec) (innerdock.Sandbox, error) {
	if spec.GPU != "" {
		return innerdock.Sandbox{}, innerdock.Errorf(innerdock.CodeUnsupported, "gpu: this server offers no GPU")
	}
	if found, _ := b.find(tenant, spec.Name); spec.Name != "" && found != nil {
		return innerdock.Sandbox{}, innerdock.Errorf(innerdock.CodeConflict, "the name %q is taken", spec.Name)
	}
	dir, err := os.MkdirTemp("", "idk")
	if err != nil {
		return innerdock.Sandbox{}, err
	}
	b.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	b.mu.Lock()
	b.last++
	s := &sandbox{tenant: tenant, dir: dir, ended: make(chan struct{}), Sandbox: innerdock.Sandbox{
		ID: fmt.Sprintf("test%08d", b.last), Name: spec.Name, State: innerdock.StateRunning, Image: spec.Image,
		CPU: 1, Memory: 1 << 30, Disk: 10 << 30, CreatedAt: time.Now().UTC(), Docker: b.docker(spec),
		RequestID: innerdock.RequestID(ctx),
	}}
	b.all[s.ID] = s
	made, created := s.Sandbox, b.created
	b.mu.Unlock()
	if err := s.start(b.t, spec.Env); err != nil {
		return innerdock.Sandbox{}, err
	}
	if created != nil {
		created(ctx)
	}
	return made, nil
}

func (b *Backend) docker(spec innerdock.SandboxSpec) innerdock.DockerStatus {
	switch {
	case !spec.Docker.Enabled:
		return innerdock.DockerStatus{State: innerdock.DockerDisabled}
	case b.Docker != nil:
		return b.Docker(spec)
	}
	return innerdock.DockerStatus{State: innerdock.DockerReady, Profile: innerdock.ProfileFull, Version: "29.0.0", Seconds: 1.5}
}

// start runs the agent and takes its connections, as the worker does.
func (s *sandbox) start(t testing.TB, env map[string]string) error {
	workspace := filepath.Join(s.dir, innerdock.WorkspaceDir)
	if err := os.MkdirAll(workspace, 0o755); err != nil {
		return err
	}
	var err error
	if s.home, err = home.Listen(s.dir, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	a := agent.New(agent.Config{
		Socket: filepath.Join(s.dir, wire.SocketName), Root: s.dir, Dockerd: filepath.Join(s.dir, DockerdSocket),
		Version: "test", Log: slog.New(slog.DiscardHandler),
	})
	var running sync.WaitGroup
	running.Go(func() { _ = a.Run(ctx) })
	s.stop = sync.OnceFunc(func() {
		cancel()
		s.home.Close()
		running.Wait()
	})
	return s.configure(ctx, env)
}

func (s *sandbox) configure(ctx context.Context, env map[string]string) error {
	body, err := json.Marshal(wire.Configuration{
		Hostname: s.ID, Address: "10.213.0.6", Nameserver: "10.213.0.1", Env: env,
	})
	if err != nil {
		return err
	}
	client := s.home.Client()
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent"+wire.PathConfigure, bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusNoContent {
		text, _ := io.ReadAll(response.Body)
		return fmt.Errorf("configuring the agent: %s: %s", response.Status, text)
	}
	return nil
}

func (b *Backend) find(tenant, idOrName string) (*sandbox, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.all {
		if s.tenant == tenant && (s.ID == idOrName || s.Name == idOrName && s.Name != "" && !s.State.Ended()) {
			return s, nil
		}
	}
	return nil, innerdock.Errorf(innerdock.CodeNotFound, "no sandbox %q; `innerdock ls` lists them", idOrName)
}

// Sandbox returns one.
func (b *Backend) Sandbox(_ context.Context, tenant, idOrName string) (innerdock.Sandbox, error) {
	s, err := b.find(tenant, idOrName)
	if err != nil {
		return innerdock.Sandbox{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return s.Sandbox, nil
}

// Sandboxes lists them.
func (b *Backend) Sandboxes(_ context.Context, tenant string, all bool) ([]innerdock.Sandbox, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []innerdock.Sandbox
	for _, id := range slices.Sorted(maps.Keys(b.all)) {
		if s := b.all[id]; s.tenant == tenant && (all || !s.State.Ended()) {
			found = append(found, s.Sandbox)
		}
	}
	return found, nil
}

// Pause says that a sandbox is paused; its agent goes on.
func (b *Backend) Pause(_ context.Context, tenant, idOrName string, persist bool) (innerdock.Sandbox, error) {
	return b.set(tenant, idOrName, innerdock.StatePaused, persist)
}

// Resume says that it runs.
func (b *Backend) Resume(_ context.Context, tenant, idOrName string) (innerdock.Sandbox, error) {
	return b.set(tenant, idOrName, innerdock.StateRunning, false)
}

func (b *Backend) set(tenant, idOrName string, state innerdock.SandboxState, persisted bool) (innerdock.Sandbox, error) {
	s, err := b.find(tenant, idOrName)
	if err != nil {
		return innerdock.Sandbox{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := s.State.To(state); err != nil {
		return innerdock.Sandbox{}, err
	}
	s.State, s.Persisted = state, persisted
	return s.Sandbox, nil
}

// Terminate stops an agent.
func (b *Backend) Terminate(_ context.Context, tenant, idOrName string, grace time.Duration) (innerdock.Sandbox, error) {
	s, err := b.find(tenant, idOrName)
	if err != nil {
		return innerdock.Sandbox{}, err
	}
	b.mu.Lock()
	if !s.State.Ended() {
		now := time.Now().UTC()
		s.State, s.EndedAt = innerdock.StateTerminated, &now
		close(s.ended)
	}
	result := s.Sandbox
	b.mu.Unlock()
	s.stop()
	return result, nil
}

// Wait waits for the end.
func (b *Backend) Wait(ctx context.Context, tenant, idOrName string) (innerdock.Sandbox, error) {
	s, err := b.find(tenant, idOrName)
	if err != nil {
		return innerdock.Sandbox{}, err
	}
	select {
	case <-s.ended:
	case <-ctx.Done():
	}
	return b.Sandbox(ctx, tenant, s.ID)
}

// WaitDocker waits while Docker is starting.
func (b *Backend) WaitDocker(ctx context.Context, tenant, idOrName string) (innerdock.DockerStatus, error) {
	s, err := b.Sandbox(ctx, tenant, idOrName)
	if err == nil && s.Docker.State == innerdock.DockerStarting {
		<-ctx.Done()
	}
	return s.Docker, err
}

// Log is one line.
func (b *Backend) Log(ctx context.Context, tenant, idOrName string) ([]byte, error) {
	s, err := b.Sandbox(ctx, tenant, idOrName)
	return []byte("level=INFO msg=\"sandbox is running\" container_id=" + s.ID + "\n"), err
}

// DialAgent connects to the real agent.
func (b *Backend) DialAgent(ctx context.Context, tenant, idOrName string) (net.Conn, error) {
	s, err := b.find(tenant, idOrName)
	if err != nil {
		return nil, err
	}
	select {
	case <-s.ended:
		return nil, innerdock.Errorf(innerdock.CodeSandboxTerminated, "sandbox %s is terminated; create another one", s.ID)
	default:
		return s.home.Dial(ctx)
	}
}
