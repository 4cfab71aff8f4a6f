package worker

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/wire"
	"github.com/innerdock/innerdock/pkg/network"
	"github.com/innerdock/innerdock/pkg/store"
)

// missing says, for each step, what a start that ran out of time still waited for.
var missing = map[wire.DockerStep]string{
	"":                 "the sandbox's agent has not begun to start it",
	wire.StepInstalled: "the look for dockerd in the image has not ended",
	wire.StepRunDir:    "/var/run could not be prepared",
	wire.StepKernel:    "cgroups, forwarding and SNAT are not set up",
	wire.StepDaemon:    "dockerd has not been started",
	wire.StepSocket:    "dockerd runs, but has not made its socket /var/run/docker.sock",
	wire.StepInfo:      "dockerd has made its socket, but does not answer on it",
}

// beginDocker starts dockerd in the background when the sandbox asks for it, and
// follows it. In one that was restored it runs, and comes back to its networks.
func (w *Worker) beginDocker(s *sandbox, rec store.Record, endpoint network.Endpoint) {
	if rec.Spec.Docker.Enabled {
		s.dockerStart = wire.DockerStart{
			Profile: rec.Docker.Profile,
			Address: endpoint.Address.Addr().String(),
			MTU:     endpoint.MTU,
			Mirror:  w.Mirror,
		}
	}
	status := rec.Docker
	if status.State == innerdock.DockerDisabled || status.State == innerdock.DockerFailed {
		w.started(s, rec)
		return
	}
	timeout := time.Duration(rec.Spec.Docker.ReadyTimeout * float64(time.Second))
	w.wg.Go(func() {
		if status.State == innerdock.DockerStarting {
			status = s.startDocker(timeout, s.dockerStart)
			if status.State == innerdock.DockerReady {
				w.started(s, rec)
			} else {
				s.started()
			}
		}
		for s.ctx.Err() == nil { // until the sandbox ends, or the next server takes over
			status.Profile = rec.Docker.Profile
			w.noteDocker(s, status)
			if status.State == innerdock.DockerFailed {
				return
			}
			status = s.followDocker(status)
		}
	})
}

// noteDocker makes a status visible to those who wait, and stores it.
func (w *Worker) noteDocker(s *sandbox, status innerdock.DockerStatus) {
	s.setDocker(func(d *innerdock.DockerStatus) { *d = status })
	_, err := w.Store.Update(s.ctx, s.id, func(r *store.Record) error {
		r.Docker = status
		return nil
	})
	if err != nil && s.ctx.Err() == nil {
		s.log.Error("docker's status could not be stored", "error", err)
	}
}

// startDocker has the agent go through the steps of Docker's start-up and
// returns how it went.
func (s *sandbox) startDocker(timeout time.Duration, start wire.DockerStart) innerdock.DockerStatus {
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	var last wire.DockerEvent
	retries := 0
	err := s.agent.startDocker(ctx, start, func(event wire.DockerEvent) {
		if event.Step == wire.StepInfo {
			retries = event.Attempt
		}
		if _, known := missing[event.Step]; known {
			s.log.Debug("waiting for docker daemon to be ready...", "step", event.Step, "attempt", event.Attempt)
		}
		if event.Error == "" {
			s.setDocker(func(d *innerdock.DockerStatus) { d.Reason = missing[event.Step] })
		}
		last = event
	})
	switch {
	case last.Step == wire.StepReady && last.Error == "":
		seconds := time.Since(s.born).Seconds()
		s.log.Info("docker daemon is ready and accepting commands", "retry_count", retries, "version", last.Version, "seconds", seconds)
		return innerdock.DockerStatus{State: innerdock.DockerReady, Version: last.Version, Seconds: seconds}
	case ctx.Err() != nil:
		s.log.Warn("docker daemon started but may not be fully ready - check that Docker is installed in your image with .with_docker()",
			"step", last.Step, "retry_count", retries)
		return failed(innerdock.CodeDockerTimeout, fmt.Sprintf(
			"Docker was not ready within %g s: %s. Give it longer (daemon_timeout), or more cpu and memory; `innerdock logs --docker %s` has its log",
			timeout.Seconds(), missing[last.Step], s.id))
	case last.Error != "":
		return s.dockerFailed(last)
	case err != nil:
		s.log.Error("docker daemon could not be started", "error", err)
		return failed(innerdock.CodeOf(err), "starting Docker failed: "+err.Error())
	default:
		return failed(innerdock.CodeDockerFailed, "starting Docker broke off while "+missing[last.Step])
	}
}

// followPace bounds how often an agent, which may lie, can have its news stored.
const followPace = 500 * time.Millisecond

// afterReady are the states that a Docker which was ready may come to, and
// maxReason caps what is kept of an agent's words, in bytes.
var afterReady = []innerdock.DockerState{innerdock.DockerReady, innerdock.DockerRestarting, innerdock.DockerFailed}

const maxReason = 8 << 10

// followDocker returns the next status that differs from last, or last when the
// sandbox's context is done. The agent restarts a dockerd that dies. One that is
// frozen while nobody takes a checkpoint is let go on, until that succeeds.
func (s *sandbox) followDocker(last innerdock.DockerStatus) innerdock.DockerStatus {
	pace := time.NewTicker(followPace)
	defer pace.Stop()
	for {
		select {
		case <-pace.C:
		case <-s.ctx.Done():
			return last
		}
		report, err := s.agent.dockerReport(s.ctx, last)
		if err == nil && report.State == innerdock.DockerStarting && s.checkpointing.TryLock() {
			s.thaw(s.ctx)
			s.checkpointing.Unlock()
			continue
		}
		if err != nil || report.State == last.State && report.Restarts == last.Restarts || !slices.Contains(afterReady, report.State) {
			continue // not connected just now, or nothing new
		}
		next := last
		next.State, next.Code, next.Restarts = report.State, report.Code, report.Restarts
		next.Reason = capped(report.Reason, maxReason)
		if report.State == innerdock.DockerFailed {
			next.Reason = withLog(next.Reason, capped(report.Log, maxReason))
		}
		s.log.Warn("docker daemon changed its state", "state", report.State, "restarts", report.Restarts, "reason", report.Reason)
		return next
	}
}

// dockerFailed turns the agent's last event into a status that says why.
func (s *sandbox) dockerFailed(event wire.DockerEvent) innerdock.DockerStatus {
	if event.Code == innerdock.CodeDockerNotInstalled {
		s.log.Error(wire.DockerdNotFound)
		return failed(event.Code, wire.DockerdNotFound)
	}
	reason := event.Error
	if event.ExitCode != nil {
		reason = fmt.Sprintf("%s (exit code %d)", reason, *event.ExitCode)
	}
	reason = withLog(reason, event.Log)
	s.log.Error("docker daemon failed to start", "step", event.Step, "error", reason)
	return failed(innerdock.CodeDockerFailed, reason)
}

// withLog adds the end of dockerd's log to why it failed.
func withLog(reason, log string) string {
	if log == "" {
		return reason
	}
	return reason + "; its last lines:\n" + log
}

func capped(text string, n int) string { return text[:min(len(text), n)] }

func failed(code innerdock.Code, reason string) innerdock.DockerStatus {
	return innerdock.DockerStatus{State: innerdock.DockerFailed, Code: code, Reason: reason}
}

func (s *sandbox) setDocker(change func(*innerdock.DockerStatus)) {
	s.mu.Lock()
	change(&s.docker)
	s.mu.Unlock()
	s.dockerChanged.Fire()
}

func (s *sandbox) dockerStatus() innerdock.DockerStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.docker
}

// WaitDocker returns Docker's status once it is neither starting nor
// restarting, or as it is when ctx is done.
func (w *Worker) WaitDocker(ctx context.Context, tenant, idOrName string) (innerdock.DockerStatus, error) {
	rec, err := w.Store.Sandbox(ctx, tenant, idOrName)
	if err != nil {
		return innerdock.DockerStatus{}, err
	}
	s := w.liveSandbox(rec.ID)
	if s == nil {
		return innerdock.DockerStatus{}, endedError(rec)
	}
	for {
		changed := s.dockerChanged.Next()
		status := s.dockerStatus()
		if status.State != innerdock.DockerStarting && status.State != innerdock.DockerRestarting {
			return status, nil
		}
		select {
		case <-changed:
		case <-s.ended:
			return status, endedError(rec)
		case <-ctx.Done():
			return status, nil
		}
	}
}
