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
	"github.com/innerdock/innerdock/pkg/agent/guard"
	"github.com/innerdock/innerdock/pkg/agent/ports"
	"github.com/innerdock/innerdock/pkg/agent/process"
	"github.com/innerdock/innerdock/pkg/agent/reply"
	"github.com/innerdock/innerdock/pkg/agent/wire"
)

// defaultGrace is the time between SIGTERM and SIGKILL of a process when nobody
// says otherwise.
const defaultGrace = 10 * time.Second

// Config says where the agent finds things.
type Config struct {
	Socket  string // to dial
	Root    string // before /workspace, /etc, …: "" but for tests, which have no kernel of their own
	Dockerd string // socket of a Docker daemon that another one started: "" but for tests
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
	guard     *guard.Guard
	handler   http.Handler

	stopOnce sync.Once
	stopping chan struct{}
	grace    time.Duration // once stopping is closed

	mu   sync.Mutex // of Configure
	last *wire.Configuration
}

// New returns an agent; Run makes it live.
func New(cfg Config) *Agent {
	workspace := filepath.Join(cfg.Root, innerdock.WorkspaceDir)
	a := &Agent{cfg: cfg, reaper: &child.Reaper{Orphans: cfg.Init}, stopping: make(chan struct{})}
	a.processes = process.NewTable(a.reaper, cfg.Root, process.Defaults{Env: environment(nil, ""), Dir: workspace})
	a.guard = guard.New(guard.Config{Memory: docker.MemoryCgroups, Containerd: docker.EventSockets, Log: cfg.Log})
	a.docker = docker.New(docker.Config{Reaper: a.reaper, Environ: a.processes.Environ, Log: cfg.Log, Root: cfg.Root, Guard: a.guard,
		Dockerd: cfg.Dockerd})

	mux := http.NewServeMux()
	a.processes.Register(mux)
	files.Tree{Dir: a.processes.Dir}.Register(mux)
	a.docker.Register(mux)
	a.guard.Register(mux)
	ports.New(ports.Config{API: a.docker.Handler(), Docker: a.docker.Connect}).Register(mux)
	mux.Handle("GET "+wire.PathHealth, reply.Handler(a.health))
	mux.Handle("POST "+wire.PathConfigure, reply.Handler(a.configure))
	mux.Handle("POST "+wire.PathFreeze, reply.Handler(a.freeze))
	mux.Handle("POST "+wire.PathShutdown, reply.Handler(a.shutdown))
	mux.Handle("/", reply.Handler(func(_ http.ResponseWriter, r *http.Request) error {
		return innerdock.Errorf(innerdock.CodeNotFound, "the agent serves no %s %s", r.Method, r.URL.Path)
	}))
	a.handler = mux
	return a
}

// Run serves until ctx ends or a shutdown is asked for, then stops dockerd and
// every process.
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

	serveCtx, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	var serving sync.WaitGroup
	serving.Go(func() { a.serve(serveCtx) })
	select {
	case <-a.stopping:
	case <-ctx.Done():
		a.stop(defaultGrace)
	}
	a.end() // of which the last words can still be read
	stopServing()
	serving.Wait()
	return nil
}

// end ends Docker with its containers, and all processes.
func (a *Agent) end() {
	var ending sync.WaitGroup
	ending.Go(func() { a.docker.Close(a.grace) })
	a.processes.Close(a.grace)
	ending.Wait()
	a.guard.Close()
	if a.cfg.Init {
		endAll(a.grace)
	}
}

// stop begins the end. The first to call it says how long that may take.
func (a *Agent) stop(grace time.Duration) {
	a.stopOnce.Do(func() {
		a.grace = grace
		close(a.stopping)
	})
}

func (a *Agent) shutdown(w http.ResponseWriter, r *http.Request) error {
	var req wire.Shutdown
	if err := reply.Body(w, r, 1<<10, &req); err != nil {
		return err
	}
	if !(req.Grace >= 0 && req.Grace <= innerdock.MaxGrace.Seconds()) {
		return innerdock.Errorf(innerdock.CodeInvalid, "grace %v is not between 0 and %v seconds", req.Grace, innerdock.MaxGrace.Seconds())
	}
	w.WriteHeader(http.StatusNoContent)
	_ = http.NewResponseController(w).Flush()
	a.stop(time.Duration(req.Grace * float64(time.Second)))
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
