// Package agent is PID 1 of a sandbox. It dials home, and serves processes,
// files and Docker's life over that one connection; nothing listens on the
// sandbox's network.
package agent

import (
	"context"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/child"
	"github.com/innerdock/innerdock/pkg/agent/docker"
	"github.com/innerdock/innerdock/pkg/agent/files"
	"github.com/innerdock/innerdock/pkg/agent/process"
	"github.com/innerdock/innerdock/pkg/agent/reply"
	"github.com/innerdock/innerdock/pkg/agent/wire"
)

const (
	dockerGrace  = 15 * time.Second // for dockerd to stop its containers
	processGrace = 3 * time.Second  // between SIGTERM and SIGKILL
)

// Config says where the agent finds things.
type Config struct {
	Socket  string // to dial
	Root    string // before /workspace, /etc, …: "" but for tests, which have no kernel of their own
	Init    bool   // be PID 1: make the directories, reap orphans, end all processes
	Version string
	Log     *slog.Logger
}

// Agent is the one of a sandbox.
type Agent struct {
	cfg       Config
	reaper    *child.Reaper
	processes *process.Table
	docker    *docker.Supervisor
	handler   http.Handler

	mu   sync.Mutex // of Configure
	last *wire.Configuration
}

// New returns an agent; Run makes it live.
func New(cfg Config) *Agent {
	workspace := filepath.Join(cfg.Root, innerdock.WorkspaceDir)
	a := &Agent{cfg: cfg, reaper: &child.Reaper{Orphans: cfg.Init}}
	a.processes = process.NewTable(a.reaper, workspace)
	a.processes.SetEnv(environment(nil, ""))
	a.docker = docker.New(docker.Config{Reaper: a.reaper, Environ: a.processes.Environ, Log: cfg.Log, Root: cfg.Root})

	mux := http.NewServeMux()
	a.processes.Register(mux)
	files.Tree{Workspace: workspace}.Register(mux)
	a.docker.Register(mux)
	mux.Handle("GET "+wire.PathHealth, reply.Handler(a.health))
	mux.Handle("POST "+wire.PathConfigure, reply.Handler(a.configure))
	mux.Handle("/", reply.Handler(func(_ http.ResponseWriter, r *http.Request) error {
		return innerdock.Errorf(innerdock.CodeNotFound, "the agent serves no %s %s", r.Method, r.URL.Path)
	}))
	a.handler = mux
	return a
}

// Run serves until ctx ends, then stops dockerd and every process.
func (a *Agent) Run(ctx context.Context) error {
	if a.cfg.Init {
		if err := makeDirs(a.cfg.Root); err != nil {
			return err
		}
	}
	reapCtx, stopReaping := context.WithCancel(context.WithoutCancel(ctx))
	var reaping sync.WaitGroup
	reaping.Go(func() { a.reaper.Run(reapCtx) })
	defer reaping.Wait()
	defer stopReaping()

	a.serve(ctx)
	a.docker.Close(dockerGrace)
	a.processes.Close(processGrace)
	if a.cfg.Init {
		endAll(processGrace)
	}
	return nil
}

// endAll ends every process of the sandbox but this one.
func endAll(grace time.Duration) {
	end := time.Now().Add(grace)
	for sig := syscall.SIGTERM; ; sig = 0 {
		if syscall.Kill(-1, sig) != nil { // ESRCH: none is left
			return
		}
		if time.Now().After(end) {
			_ = syscall.Kill(-1, syscall.SIGKILL)
			return
		}
		<-time.After(10 * time.Millisecond)
	}
}

func (a *Agent) health(w http.ResponseWriter, _ *http.Request) error {
	reply.JSON(w, http.StatusOK, wire.Health{Agent: a.cfg.Version, Processes: a.reaper.Running()})
	return nil
}
