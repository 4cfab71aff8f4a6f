package worker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/wire"
	"github.com/innerdock/innerdock/pkg/runtime"
	"github.com/innerdock/innerdock/pkg/store"
	"github.com/innerdock/innerdock/pkg/worker/broadcast"
	"github.com/innerdock/innerdock/pkg/worker/home"
)

// sandbox is what the worker holds of a sandbox while it lives: its agent, its
// Docker status and the watch on its death. What must outlive the server is in
// the store.
type sandbox struct {
	id      string
	log     *slog.Logger
	logFile *os.File
	born    time.Time
	memory  int64 // bytes
	disk    int64 // bytes

	from    warmth // what it was started from; zero when it was taken over
	started func() // its start, Docker's included, is over

	watched    chan struct{} // closed when filestores is known
	filestores runtime.Filestores
	overDisk   time.Time // since when they have more than disk; the disk guard's

	home  *home.Home
	agent agentClient

	ctx    context.Context // until the sandbox ends or the server closes
	cancel context.CancelCauseFunc

	settled chan struct{}   // closed when start or adopt is over
	dead    context.Context // done when the sentry has exited
	died    context.CancelFunc
	ended   chan struct{} // closed when no resource is left and the store says so
	ending  atomic.Bool   // somebody has it for its end, or for another one in its place
	endErr  error         // why the teardown failed, valid after ended

	dockerStart   wire.DockerStart // how its Docker is started; nothing: it has none
	checkpointing sync.Mutex
	pauses        pauses

	mu            sync.Mutex
	docker        innerdock.DockerStatus
	dockerChanged broadcast.Signal
}

// errEnding cancels a sandbox's context when its end has begun.
var errEnding = errors.New("the sandbox is ending")

// register makes the sandbox's live half and has others see it.
func (w *Worker) register(rec *store.Record) (*sandbox, error) {
	s, err := w.open(rec)
	if err == nil {
		w.publish(s)
	}
	return s, err
}

func (w *Worker) publish(s *sandbox) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.live[s.id] = s
}

// open makes a live half, with its log and control socket.
func (w *Worker) open(rec *store.Record) (*sandbox, error) {
	if err := os.MkdirAll(w.controlDir(rec.ID), 0o700); err != nil {
		return nil, innerdock.Internal(err, "making the sandbox's directory")
	}
	file, err := os.OpenFile(w.logFile(rec.ID), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, innerdock.Internal(err, "opening the sandbox's log")
	}
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, errors.Join(innerdock.Internal(err, "opening the sandbox's log"), file.Close())
	}
	own := slog.NewTextHandler(&cappedWriter{file, maxLog - size}, &slog.HandlerOptions{Level: slog.LevelDebug})
	s := &sandbox{
		id:      rec.ID,
		log:     slog.New(slog.NewMultiHandler(w.Logger.Handler(), own)).With("container_id", rec.ID),
		logFile: file,
		born:    rec.CreatedAt,
		memory:  rec.Memory,
		disk:    rec.Disk,
		watched: make(chan struct{}),
		settled: make(chan struct{}),
		ended:   make(chan struct{}),
		docker:  rec.Docker,
		started: func() {},
	}
	s.ctx, s.cancel = context.WithCancelCause(w.ctx)
	s.dead, s.died = context.WithCancel(context.WithoutCancel(w.ctx))
	if s.home, err = home.Listen(w.controlDir(rec.ID), s.log); err != nil {
		s.cancel(err)
		return nil, errors.Join(err, file.Close())
	}
	s.agent = agentClient{http: s.home.Client()}
	return s, nil
}

// maxLog caps the server's log of one sandbox, in bytes: some of its lines are
// written because of what a sandbox does, and it may do that all day.
const maxLog = 1 << 20

// cappedWriter passes on whole writes until one does not fit, and drops the rest.
type cappedWriter struct {
	to   io.Writer
	left int64
}

func (w *cappedWriter) Write(p []byte) (int, error) {
	if w.left -= int64(len(p)); w.left < 0 {
		w.left = 0
		w.to = io.Discard
	}
	return w.to.Write(p)
}

// abandon lets go of a sandbox that goes on living without this server.
func (s *sandbox) abandon() {
	s.cancel(errors.New("the server is closing"))
	s.home.Close()
	_ = s.logFile.Close()
}

// watch waits for the sentry's death, whoever its parent is, and ends the
// sandbox when nobody else has begun to.
func (w *Worker) watch(s *sandbox, pid int) error {
	death, err := watchDeath(pid)
	if err != nil {
		s.died()
		return err
	}
	if s.filestores, err = runtime.FindFilestores(pid); err != nil {
		death.close()
		s.died()
		return err
	}
	close(s.watched)
	stop := context.AfterFunc(w.ctx, death.close)
	w.wg.Go(func() { w.guardMemory(s) })
	w.wg.Go(func() {
		defer stop()
		defer death.close()
		if !death.wait() {
			return // the server is closing
		}
		s.died()
		<-s.settled
		_ = w.end(s, ending{state: innerdock.StateFailed, reason: causeOfDeath(s.id)})
	})
	return nil
}

func causeOfDeath(id string) string {
	if runtime.OOMKilled(id) {
		return "it ran out of memory and was killed; create it with more memory="
	}
	return "its first process ended, so all others did; `innerdock logs` may say more"
}
