// Package docker starts dockerd in the sandbox, tells each step, and keeps it
// alive afterwards.
package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/child"
	"github.com/innerdock/innerdock/pkg/agent/docker/front"
	"github.com/innerdock/innerdock/pkg/agent/docker/kept"
	"github.com/innerdock/innerdock/pkg/agent/output"
	"github.com/innerdock/innerdock/pkg/agent/process"
	"github.com/innerdock/innerdock/pkg/agent/wire"
	"github.com/innerdock/innerdock/pkg/agent/wiring"
)

const (
	logSize      = 1 << 20          // of dockerd's log that is kept
	logTail      = 4 << 10          // of it that an error carries
	cancelGrace  = 5 * time.Second  // for a dockerd whose start was given up
	stopGrace    = 20 * time.Second // dockerd gives its containers 15
	firstPause   = 100 * time.Millisecond
	longestPause = 10 * time.Second
	stable       = time.Minute // after this the pauses begin anew
	maxFailures  = 5           // restarts in a row that led to nothing, before that is all
	restartLimit = time.Minute // for a restarted dockerd to answer
)

// Config says what the supervisor works with.
type Config struct {
	Reaper  *child.Reaper
	Environ func(extra map[string]string) []string // of dockerd
	Log     *slog.Logger
	Root    string // before /etc/docker and /var/run: "" but for tests
	Guard   Guard  // not used where Root is set
	Dockerd string // socket of a daemon that another one started: "" but for tests
}

// Guard keeps the memory limits of containers, which gVisor does not.
type Guard interface {
	Start(ctx context.Context) error // the cgroups are mounted
}

// Supervisor owns the sandbox's dockerd.
type Supervisor struct {
	cfg   Config
	log   *output.Buffer
	front *front.Front
	turn  chan struct{} // one start, stop or close at a time

	// Touched only in turn, or by watch.
	containerd   *process.Process // nil: none, or not ours
	dockerd      *process.Process // nil: none
	containerdID string           // what dockerd says of its containerd
	rulesFor     netip.Addr       // whose firewall rules are in place
	opened       bool             // the public socket is ours
	frozen       *wiring.Picture  // how the networks are, since a checkpoint may be taken

	isolating sync.Mutex
	isolated  []string // bridges that are cut off, sorted

	stop    context.CancelFunc // of watch; nil: it does not run
	watched sync.WaitGroup

	mu      sync.Mutex
	report  wire.DockerReport
	changed chan struct{}
}

// New returns a supervisor that has started nothing.
func New(cfg Config) *Supervisor {
	s := &Supervisor{cfg: cfg, log: output.NewBuffer(logSize), turn: make(chan struct{}, 1),
		report: wire.DockerReport{State: innerdock.DockerDisabled}, changed: make(chan struct{})}
	s.front = front.New(front.Config{Wait: s.Wait, Dial: s.Connect, NetworksChanged: s.networksChanged})
	return s
}

// Start starts dockerd and returns when it answers, or why it does not. Each
// step is told to emit when it begins. If dockerd is ready already, that is all
// that is told. When ctx ends first, dockerd is stopped.
func (s *Supervisor) Start(ctx context.Context, req wire.DockerStart, emit func(wire.DockerEvent)) error {
	if err := valid(req); err != nil {
		return err
	}
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.release()
	if s.frozen != nil {
		if version, err := s.thaw(ctx, req); err == nil {
			emit(wire.DockerEvent{Step: wire.StepReady, Version: version})
			return nil
		} else if ctx.Err() == nil {
			s.cfg.Log.Error("Docker did not come back after a checkpoint and is started anew", "error", err)
		}
	}
	if r := s.Report(); r.State == innerdock.DockerReady {
		emit(wire.DockerEvent{Step: wire.StepReady, Version: r.Version})
		return nil
	}
	s.end(cancelGrace)
	s.set(wire.DockerReport{State: innerdock.DockerStarting, Profile: req.Profile})
	version, err := s.launch(ctx, req, emit)
	if err != nil {
		event := s.failure(ctx, err)
		s.end(cancelGrace)
		s.set(wire.DockerReport{State: innerdock.DockerFailed, Profile: req.Profile,
			Code: event.Code, Reason: event.Error, ExitCode: event.ExitCode, Log: event.Log})
		emit(event)
		return err
	}
	s.set(wire.DockerReport{State: innerdock.DockerReady, Profile: req.Profile, Version: version})
	s.keep(ctx, req)
	emit(wire.DockerEvent{Step: wire.StepReady, Version: version})
	return nil
}

// keep has the daemons watched from now on.
func (s *Supervisor) keep(ctx context.Context, req wire.DockerStart) {
	watchCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.watched.Go(func() { s.watch(watchCtx, req) })
}

// valid checks a request, so that nothing odd becomes a flag or a rule.
func valid(req wire.DockerStart) error {
	switch req.Profile {
	case innerdock.ProfileFull, innerdock.ProfileMinimal:
		return nil
	}
	return innerdock.Errorf(innerdock.CodeInvalid, "profile %q is neither full nor minimal", req.Profile)
}

// failure describes why a launch failed. Running out of time is why, where that
// is what ended it.
func (s *Supervisor) failure(ctx context.Context, err error) wire.DockerEvent {
	event := wire.DockerEvent{Code: innerdock.CodeDockerFailed, Error: err.Error()}
	if known := (*stepError)(nil); errors.As(err, &known) {
		event.Step, event.Attempt = known.step, known.attempt
		event.Code, event.ExitCode = known.code, known.exitCode
		if event.Step != wire.StepInstalled {
			event.Log = s.log.Tail(logTail)
		}
	}
	if ctx.Err() != nil {
		event.Code = innerdock.CodeDockerTimeout
	}
	return event
}

// watch restarts a daemon that dies, until ctx ends or it does not come back.
func (s *Supervisor) watch(ctx context.Context, req wire.DockerStart) {
	pause, failures := firstPause, 0
	for restarts := 1; ; restarts++ {
		began := time.Now()
		name, dead := "dockerd", s.dockerd
		select {
		case <-s.dockerd.Done():
		case <-done(s.containerd):
			name, dead = "containerd", s.containerd
		case <-ctx.Done():
			return
		}
		if time.Since(began) > stable {
			pause = firstPause
		}
		ok := s.restart(ctx, req, wire.DockerReport{State: innerdock.DockerRestarting, Profile: req.Profile, Restarts: restarts,
			Code: innerdock.CodeDockerFailed, Reason: died(name, dead.Exit()), ExitCode: new(dead.Exit().Code), Log: s.log.Tail(logTail)}, pause)
		if ctx.Err() != nil {
			return
		}
		pause = min(2*pause, longestPause)
		if failures++; ok {
			failures = 0
		}
		if failures == maxFailures {
			s.giveUp()
			return
		}
	}
}

// giveUp ends what is left of a Docker that does not come back.
func (s *Supervisor) giveUp() {
	report := s.Report()
	report.State = innerdock.DockerFailed
	report.Reason = fmt.Sprintf("it died, and %d restarts failed: %s", maxFailures, report.Reason)
	s.cfg.Log.Error("Docker is given up", "reason", report.Reason)
	kill(s.containerd, cancelGrace)
	s.set(report)
}

// done is p.Done, and never comes for a process that is not there.
func done(p *process.Process) <-chan struct{} {
	if p == nil {
		return nil
	}
	return p.Done()
}

// restart starts what died again after a pause, and tells the state. Where that
// fails, which it reports, dockerd is not left running, and watch comes here again.
func (s *Supervisor) restart(ctx context.Context, req wire.DockerStart, report wire.DockerReport, pause time.Duration) bool {
	s.cfg.Log.Warn("a daemon of Docker died", "reason", report.Reason, "restarts", report.Restarts)
	s.set(report)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return false
	}
	for _, p := range []*process.Process{s.containerd, s.dockerd} {
		if p != nil && !alive(p) {
			p.Close()
		}
	}
	limited, cancel := context.WithTimeout(ctx, restartLimit)
	defer cancel()
	version, err := s.launch(limited, req, func(wire.DockerEvent) {})
	if err != nil {
		event := s.failure(limited, err)
		report.Code, report.Reason, report.ExitCode, report.Log = event.Code, event.Error, event.ExitCode, event.Log
		s.set(report)
		kill(s.dockerd, cancelGrace)
		return false
	}
	s.set(wire.DockerReport{State: innerdock.DockerReady, Profile: req.Profile, Version: version, Restarts: report.Restarts})
	return true
}

// Stop stops dockerd, which stops its containers. Nothing to stop is no error.
func (s *Supervisor) Stop(ctx context.Context) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.release()
	s.end(stopGrace)
	s.set(wire.DockerReport{State: innerdock.DockerDisabled})
	return nil
}

// Where Docker's data is, and the images that come with the root.
const (
	dataDir = "/var/lib/docker"
	keptDir = "/var/lib/innerdock/docker"
)

// Keep stops dockerd and moves its images into the root, from where the Docker of
// every sandbox that has this root is lent them.
func (s *Supervisor) Keep(ctx context.Context) error {
	if err := s.Stop(ctx); err != nil {
		return err
	}
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.release()
	err := kept.Keep(s.path(dataDir), s.path(keptDir))
	if errors.Is(err, kept.ErrStore) {
		return innerdock.Errorf(innerdock.CodeUnsupported, "%w", err)
	}
	if err != nil {
		return innerdock.Errorf(innerdock.CodeDockerFailed, "Docker's images could not be kept: %w", err)
	}
	return nil
}

// Close stops dockerd for good, within grace. A start that is under way must
// have been cancelled.
func (s *Supervisor) Close(grace time.Duration) {
	s.turn <- struct{}{} // kept
	s.end(grace)
	s.set(wire.DockerReport{State: innerdock.DockerDisabled}) // which ends those who wait
	s.front.Close()
}

func (s *Supervisor) take(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return innerdock.Errorf(innerdock.CodeUnavailable, "Docker is being started or stopped by another request")
	}
}

func (s *Supervisor) release() { <-s.turn }

// end ends the watching and the daemons.
func (s *Supervisor) end(grace time.Duration) {
	s.unwatch()
	s.forget()
	kill(s.dockerd, grace)
	kill(s.containerd, cancelGrace)
}

func (s *Supervisor) unwatch() {
	if s.stop != nil {
		s.stop()
		s.watched.Wait()
		s.stop = nil
	}
}

// kill ends p, if there is one: SIGTERM, and SIGKILL after grace.
func kill(p *process.Process, grace time.Duration) {
	if p == nil {
		return
	}
	_ = p.Signal(syscall.SIGTERM)
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case <-p.Done():
	case <-late.C:
		_ = p.Signal(syscall.SIGKILL)
		<-p.Done()
	}
	p.Close()
}

// Report returns the state.
func (s *Supervisor) Report() wire.DockerReport {
	report, _ := s.current()
	return report
}

// current returns the state, and what is closed when it changes.
func (s *Supervisor) current() (wire.DockerReport, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.report, s.changed
}

func (s *Supervisor) set(r wire.DockerReport) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report = r
	close(s.changed)
	s.changed = make(chan struct{})
}

// AnyRestarts is for Await: their number does not matter.
const AnyRestarts = -1

// Await returns the state once it is not the given one, or was reached by more
// restarts than that, or when d or ctx ends.
func (s *Supervisor) Await(ctx context.Context, not innerdock.DockerState, restarts int, d time.Duration) wire.DockerReport {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		report, changed := s.current()
		if report.State != not || restarts != AnyRestarts && report.Restarts != restarts {
			return report
		}
		select {
		case <-changed:
		case <-timer.C:
			return report
		case <-ctx.Done():
			return report
		}
	}
}
