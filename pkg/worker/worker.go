// Package worker runs sandboxes on this machine. It owns a sandbox from the
// request to the last resource: the state machine (lifecycle.go), Docker's
// start-up (docker.go), pauses (pause.go), what an earlier server left (reconcile.go), and the
// sandboxes that build images: a plain one for steps (build.go), and those with
// Docker for Dockerfiles (builder.go).
//
// Every resource of the host is named from the sandbox's ID and the store knows
// of it before it is made, so a killed server leaves nothing that the next one
// cannot find.
package worker

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/wire"
	"github.com/innerdock/innerdock/pkg/durable"
	"github.com/innerdock/innerdock/pkg/network"
	"github.com/innerdock/innerdock/pkg/runtime"
	"github.com/innerdock/innerdock/pkg/store"
	"github.com/innerdock/innerdock/pkg/worker/agentbin"
	"github.com/innerdock/innerdock/pkg/worker/broadcast"
	"github.com/innerdock/innerdock/pkg/worker/pipcache"
	"github.com/innerdock/innerdock/pkg/worker/template"
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
	Build(ctx context.Context, def innerdock.ImageDefinition, progress func(event string, e innerdock.BuildEvent)) (innerdock.Image, error)
	Export(ctx context.Context, id string, begin func(), archive io.Writer) error
	Import(ctx context.Context, archive io.Reader, progress func(event string, e innerdock.BuildEvent)) (innerdock.Image, error)
	Commit(ctx context.Context, parent, by string, write func(layer io.Writer) error) (innerdock.Image, error)
}

// Config is what a Worker is made of.
type Config struct {
	Data    string // absolute directory of this server alone, on a disk
	Prefix  string // of every sandbox ID: see Prefix
	Store   *store.Store
	Runtime runtime.Runtime
	Network Network
	Mirror  string // URL of the registry cache as sandboxes see it; "" for none
	Logger  *slog.Logger

	Policy SnapshotPolicy

	DeclaredPools []DeclaredPool // that there are besides those of the store

	RuntimeBuild string // names the very runtime that checkpoints are made with
	TemplateRoom int64  // bytes of disk for the templates of warm starts; 0: all starts are cold

	BuildTime   time.Duration // of one Dockerfile; default DefaultBuildTime
	BuilderIdle time.Duration // after which a builder ends; default DefaultBuilderIdle
	BuilderDisk int64         // bytes of a builder's disk, its cache included; default DefaultBuilderDisk
	PipCache    int64         // bytes of what pip downloads that are kept for each tenant; 0: none
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

	templates  *template.Store // nil: all starts are cold
	pip        *pipcache.Store
	maker      maker
	pools      pools
	declared   []*pool // by the configuration
	builders   builders
	stopMaking context.CancelFunc
	making     sync.WaitGroup

	snapshotsChanged broadcast.Signal // one is ready
	keyMu            sync.Mutex       // of the file snapshot.key

	mu   sync.Mutex
	live map[string]*sandbox
}

// Open takes over the data directory, which the caller has locked: it adopts the sandboxes that live and
// removes what is left of those that do not. ctx bounds the opening alone.
func Open(ctx context.Context, cfg Config) (*Worker, error) {
	w := &Worker{Config: cfg, live: map[string]*sandbox{}, maker: maker{known: map[string]*job{}}, stopMaking: func() {}}
	w.BuildTime = cmp.Or(w.BuildTime, DefaultBuildTime)
	w.BuilderIdle = cmp.Or(w.BuilderIdle, DefaultBuilderIdle)
	w.BuilderDisk = cmp.Or(w.BuilderDisk, DefaultBuilderDisk)
	w.builders = builders{slots: make(chan struct{}, maxBuilds), of: map[string]*tenantBuilds{}}
	for _, dir := range []string{w.sandboxesDir(), w.logsDir(), w.ScratchDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, innerdock.Internal(err, "preparing the data directory")
		}
	}
	// A sandbox's file loses its name as soon as it is made. One that has its name was
	// made by a command of runsc that was killed in between.
	if err := durable.Sweep(w.ScratchDir(), func(string) bool { return false }); err != nil {
		return nil, innerdock.Internal(err, "removing what a killed runsc has left")
	}
	var err error
	if w.declared, err = w.declarePools(); err != nil {
		return nil, err
	}
	if w.agentDir, err = agentbin.Install(filepath.Join(cfg.Data, "agent")); err != nil {
		return nil, err
	}
	if w.pip, err = pipcache.Open(ctx, filepath.Join(cfg.Data, "pip"), w.PipCache); err != nil {
		return nil, err
	}
	w.ctx, w.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := w.reconcile(ctx); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	if err := errors.Join(w.openTemplates(ctx), w.openSnapshots(ctx)); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	w.wg.Go(w.guardDisks)
	w.wg.Go(w.retain)
	w.wg.Go(w.trimPip)
	return w, nil
}

// UseImages gives the worker its images. It is apart from Open because an image
// store builds in sandboxes, and so needs the worker first.
func (w *Worker) UseImages(images Images) {
	w.images = images
	var ctx context.Context
	ctx, w.stopMaking = context.WithCancel(w.ctx)
	w.making.Go(func() { w.make(ctx) })
	w.making.Go(func() { w.keepPools(ctx) })
	w.making.Go(func() { w.findImages(ctx) })
}

// ImagesInUse says what needs an image, by the image's ID: a live sandbox that was
// made from it, a pool that makes them from it, or a snapshot of one.
func (w *Worker) ImagesInUse(ctx context.Context) (map[string]string, error) {
	records, err := w.Store.Live(ctx)
	if err != nil {
		return nil, err
	}
	snapshots, err := w.Store.AllSnapshots(ctx)
	if err != nil {
		return nil, err
	}
	used := map[string]string{}
	for _, snap := range snapshots {
		used[snap.Image] = "snapshot " + snap.ID
	}
	pools, err := w.Store.Pools(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range slices.Concat(pools, w.Pools()) { // the latter are more by those that are declared
		used[p.Image] = "pool " + p.ID
	}
	for _, rec := range records {
		if !rec.Internal { // those that make templates end by themselves
			used[rec.Image] = "sandbox " + rec.ID
		}
	}
	return used, nil
}

// Close stops watching and leaves every sandbox running for the next server.
func (w *Worker) Close() error {
	w.stopMaking()
	w.making.Wait() // it ends its sandbox
	drained := w.drain()
	w.cancel()
	w.mu.Lock()
	for _, s := range w.live {
		s.abandon()
	}
	w.mu.Unlock()
	w.wg.Wait()
	return drained
}

func (w *Worker) templatesDir() string        { return filepath.Join(w.Data, "templates") }
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
	// Of the process: a child that has not become its program yet does not have it.
	if err := unix.FcntlFlock(file.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
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

// DialAgent opens a connection on which the sandbox's agent serves HTTP/1.1, for
// a request that is over when it is closed.
func (w *Worker) DialAgent(ctx context.Context, tenant, idOrName string) (net.Conn, error) {
	rec, err := w.Store.Sandbox(ctx, tenant, idOrName)
	if err != nil {
		return nil, err
	}
	s, done, err := w.use(ctx, rec)
	if err != nil {
		return nil, err
	}
	// While a checkpoint is written there is no agent, however long that takes.
	if err := s.home.Opened(ctx); err != nil {
		done()
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialWait)
	defer cancel()
	conn, err := s.home.Dial(ctx)
	if err != nil {
		done()
		if s.pauses.standing() == persisted { // meanwhile
			err = pausedError(s.id)
		}
		return nil, err
	}
	return request{conn, done}, nil
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
