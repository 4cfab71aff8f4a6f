// Package worker runs sandboxes on this machine. It owns a sandbox from the
// request to the last resource: the state machine (lifecycle.go), Docker's
// start-up (docker.go), what an earlier server left (reconcile.go), and the
// sandboxes that build images (build.go).
//
// Every resource of the host is named from the sandbox's ID and the store knows
// of it before it is made, so a killed server leaves nothing that the next one
// cannot find.
package worker

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/wire"
	"github.com/innerdock/innerdock/pkg/network"
	"github.com/innerdock/innerdock/pkg/runtime"
	"github.com/innerdock/innerdock/pkg/store"
	"github.com/innerdock/innerdock/pkg/worker/agentbin"
)

// Network gives sandboxes their network; *network.Network is the real one.
type Network interface {
	ServiceAddr() netip.Addr
	Capacity() int
	Attach(ctx context.Context, id string, index int, p network.Policy) (network.Endpoint, error)
	Adopt(ctx context.Context, id string, index int, p network.Policy) (network.Endpoint, error)
	Detach(ctx context.Context, id string) error
	List(ctx context.Context) ([]string, error)
}

// Images finds the roots of sandboxes; *image.Store is the real one.
type Images interface {
	Get(ctx context.Context, id string) (innerdock.Image, error)
	Root(id string) string
}

// Config is what a Worker is made of.
type Config struct {
	Data    string // absolute directory of this server alone, on a disk
	Prefix  string // of every sandbox ID: see Prefix
	Store   *store.Store
	Runtime runtime.Runtime
	Network Network
	Mirror  string        // URL of the registry cache as sandboxes see it; "" for none
	Grace   time.Duration // between SIGTERM and SIGKILL of a sandbox; default 10 s
	Logger  *slog.Logger
}

// keepEnded is how many ended sandboxes, with their logs, are remembered.
const keepEnded = 1000

// Worker runs sandboxes. Its methods may be called concurrently.
type Worker struct {
	Config
	images   Images
	agentDir string
	ctx      context.Context // until Close
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	mu   sync.Mutex
	live map[string]*sandbox
}

// Open takes over the data directory, which the caller has locked: it adopts the sandboxes that live and
// removes what is left of those that do not. ctx bounds the opening alone.
func Open(ctx context.Context, cfg Config) (*Worker, error) {
	if cfg.Grace == 0 {
		cfg.Grace = 10 * time.Second
	}
	w := &Worker{Config: cfg, live: map[string]*sandbox{}}
	for _, dir := range []string{w.sandboxesDir(), w.logsDir(), w.ScratchDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, innerdock.Internal(err, "preparing the data directory")
		}
	}
	var err error
	if w.agentDir, err = agentbin.Install(filepath.Join(cfg.Data, "agent")); err != nil {
		return nil, err
	}
	w.ctx, w.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := w.reconcile(ctx); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// UseImages gives the worker its images. It is apart from Open because an image
// store builds in sandboxes, and so needs the worker first.
func (w *Worker) UseImages(images Images) { w.images = images }

// Close stops watching and leaves every sandbox running for the next server.
func (w *Worker) Close() error {
	w.cancel()
	w.mu.Lock()
	for _, s := range w.live {
		s.abandon()
	}
	w.mu.Unlock()
	w.wg.Wait()
	return nil
}

func (w *Worker) sandboxesDir() string        { return filepath.Join(w.Data, "sandboxes") }
func (w *Worker) sandboxDir(id string) string { return filepath.Join(w.sandboxesDir(), id) }
func (w *Worker) logsDir() string             { return filepath.Join(w.Data, "logs") }
func (w *Worker) logFile(id string) string    { return filepath.Join(w.logsDir(), id+".log") }
func (w *Worker) bundleDir(id string) string  { return filepath.Join(w.sandboxDir(id), "bundle") }
func (w *Worker) controlDir(id string) string { return filepath.Join(w.sandboxDir(id), "control") }
func (w *Worker) dockerDir(id string) string  { return filepath.Join(w.sandboxDir(id), "docker") }

// ScratchDir holds the files behind the sandboxes' writable layers. It is one
// directory for all, because checkpoints refer to it.
func (w *Worker) ScratchDir() string { return filepath.Join(w.Data, "scratch") }

// maxSocketPath is what Linux allows for the name of a Unix socket.
const maxSocketPath = 107

// CheckData refuses a data directory that is too deep for the control sockets
// in it.
func CheckData(dir string) error {
	w := Worker{Config: Config{Data: dir}}
	longest := filepath.Join(w.controlDir(strings.Repeat("x", prefixLength+randomLength)), wire.SocketName)
	if over := len(longest) - maxSocketPath; over > 0 {
		return innerdock.Errorf(innerdock.CodeInvalid,
			"the path of the data directory is %d characters too long for the sockets in it; choose a shorter --data", over)
	}
	return nil
}

// Lock makes sure that one server at a time uses a data directory. Take it before
// anything in the directory is opened; closing the file gives it free.
func Lock(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, innerdock.Internal(err, "opening the data directory's lock")
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, innerdock.Errorf(innerdock.CodeConflict,
			"another server uses %s; stop it, or give this one another --data directory", dir)
	}
	return file, nil
}

// Sandbox returns a tenant's sandbox by ID or by the name of a live one.
func (w *Worker) Sandbox(ctx context.Context, tenant, idOrName string) (innerdock.Sandbox, error) {
	rec, err := w.Store.Sandbox(ctx, tenant, idOrName)
	return rec.Sandbox, err
}

// Sandboxes lists a tenant's live sandboxes, newest first; with all, the ended ones too.
func (w *Worker) Sandboxes(ctx context.Context, tenant string, all bool) ([]innerdock.Sandbox, error) {
	records, err := w.Store.Sandboxes(ctx, tenant, all)
	if err != nil {
		return nil, err
	}
	sandboxes := make([]innerdock.Sandbox, len(records))
	for i, rec := range records {
		sandboxes[i] = rec.Sandbox
	}
	return sandboxes, nil
}

// Wait returns the sandbox when it has ended, or as it is when ctx is done.
func (w *Worker) Wait(ctx context.Context, tenant, idOrName string) (innerdock.Sandbox, error) {
	rec, err := w.Store.Sandbox(ctx, tenant, idOrName)
	if err != nil {
		return innerdock.Sandbox{}, err
	}
	if s := w.liveSandbox(rec.ID); s != nil {
		select {
		case <-s.ended:
		case <-ctx.Done():
		}
	}
	return w.Sandbox(context.WithoutCancel(ctx), tenant, rec.ID)
}

// Log returns the server's own log of the sandbox, which outlives it.
func (w *Worker) Log(ctx context.Context, tenant, idOrName string) ([]byte, error) {
	rec, err := w.Store.Sandbox(ctx, tenant, idOrName)
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile(w.logFile(rec.ID))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, innerdock.Internal(err, "reading the sandbox's log")
	}
	return content, nil
}

// dialWait bounds how long a request waits for an agent that is re-dialling.
const dialWait = 5 * time.Second

// DialAgent opens a connection on which the sandbox's agent serves HTTP/1.1.
func (w *Worker) DialAgent(ctx context.Context, tenant, idOrName string) (net.Conn, error) {
	rec, err := w.Store.Sandbox(ctx, tenant, idOrName)
	if err != nil {
		return nil, err
	}
	s := w.liveSandbox(rec.ID)
	if s == nil || rec.State.Ended() {
		return nil, endedError(rec)
	}
	ctx, cancel := context.WithTimeout(ctx, dialWait)
	defer cancel()
	return s.home.Dial(ctx)
}

func endedError(rec store.Record) error {
	why := ""
	if rec.Reason != "" {
		why = ": " + rec.Reason
	}
	return innerdock.Errorf(innerdock.CodeSandboxTerminated,
		"sandbox %s is %s%s; create another one", rec.ID, rec.State, why)
}

func (w *Worker) liveSandbox(id string) *sandbox {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.live[id]
}
