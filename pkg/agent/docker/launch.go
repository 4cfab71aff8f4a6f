package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/child"
	"github.com/innerdock/innerdock/pkg/agent/process"
	"github.com/innerdock/innerdock/pkg/agent/wire"
)

const (
	pollPause   = 10 * time.Millisecond // between looks at the socket
	infoPause   = 25 * time.Millisecond // between questions
	infoTimeout = 2 * time.Second       // of the first question; each next one has that much more
	maxInfo     = 1 << 20
)

// stepError is a failure of one step of the start.
type stepError struct {
	step     wire.DockerStep
	attempt  int
	code     innerdock.Code
	message  string
	exitCode *int
	cause    error
}

func (e *stepError) Error() string { return e.message }
func (e *stepError) Unwrap() error { return e.cause }

// failedAt is an error of a step that has no more to tell.
func failedAt(step wire.DockerStep, err error) error {
	return &stepError{step: step, code: innerdock.CodeDockerFailed, message: err.Error(), cause: err}
}

// launch takes the steps of Docker's start-up and returns dockerd's version.
// What runs already is left running. The daemons are in s.containerd and
// s.dockerd, also when it fails.
func (s *Supervisor) launch(ctx context.Context, req wire.DockerStart, emit func(wire.DockerEvent)) (string, error) {
	emit(wire.DockerEvent{Step: wire.StepInstalled})
	path, err := process.Lookup("dockerd", "/", s.cfg.Environ(nil))
	if innerdock.CodeOf(err) == innerdock.CodeCommandNotFound {
		return "", &stepError{step: wire.StepInstalled, code: innerdock.CodeDockerNotInstalled, message: wire.DockerdNotFound}
	}
	if err != nil {
		return "", failedAt(wire.StepInstalled, err)
	}
	emit(wire.DockerEvent{Step: wire.StepRunDir})
	if err := s.prepareRunDir(); err != nil {
		return "", failedAt(wire.StepRunDir, err)
	}
	emit(wire.DockerEvent{Step: wire.StepKernel})
	rules, err := s.prepareKernel(ctx, req)
	if err != nil {
		return "", failedAt(wire.StepKernel, err)
	}
	version, err := s.runDaemons(ctx, path, req, emit)
	if rulesErr := <-rules; rulesErr != nil && err == nil {
		return "", failedAt(wire.StepKernel, rulesErr)
	}
	return version, err
}

// prepareRunDir makes /var/run, and removes what a dockerd that did not end by
// itself left there: with its PID taken by another, dockerd would not start.
func (s *Supervisor) prepareRunDir() error {
	if err := os.MkdirAll(s.path("/var/run"), 0o755); err != nil {
		return err
	}
	for file, program := range map[string]string{"docker.pid": "dockerd", "docker/containerd/containerd.pid": "containerd"} {
		file = filepath.Join(s.path("/var/run"), file)
		body, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		comm, err := os.ReadFile("/proc/" + strings.TrimSpace(string(body)) + "/comm")
		if err != nil || strings.TrimSpace(string(comm)) != program {
			os.Remove(file)
		}
	}
	return nil
}

func (s *Supervisor) path(p string) string { return s.cfg.Root + p }

func (s *Supervisor) socket() string { return s.path("/var/run/docker.sock") }

// runDaemons starts containerd and dockerd and waits for dockerd's answer.
func (s *Supervisor) runDaemons(ctx context.Context, path string, req wire.DockerStart, emit func(wire.DockerEvent)) (string, error) {
	emit(wire.DockerEvent{Step: wire.StepDaemon})
	config, err := s.configure(req)
	if err != nil {
		return "", failedAt(wire.StepDaemon, err)
	}
	if err := s.startContainerd(ctx, config); err != nil {
		return "", err
	}
	if err := s.startDockerd(path, arguments(req, config)); err != nil {
		return "", failedAt(wire.StepDaemon, err)
	}
	emit(wire.DockerEvent{Step: wire.StepSocket})
	if err := s.awaitSocket(ctx); err != nil {
		return "", err
	}
	return s.awaitInfo(ctx, emit)
}

// startDockerd starts dockerd, unless it runs.
func (s *Supervisor) startDockerd(path string, flags []string) error {
	if alive(s.dockerd) {
		return nil
	}
	env, err := s.daemonEnv()
	if err != nil {
		return err
	}
	dockerd, err := process.Start(s.cfg.Reaper, process.Command{Path: path,
		Args: append([]string{"dockerd"}, flags...), Dir: "/", Env: env, Stdout: s.log})
	if err != nil {
		return err
	}
	s.dockerd = dockerd
	return nil
}

// awaitSocket waits for the socket to exist.
func (s *Supervisor) awaitSocket(ctx context.Context) error {
	tick := time.NewTicker(pollPause)
	defer tick.Stop()
	for {
		if info, err := os.Stat(s.socket()); err == nil && info.Mode()&os.ModeSocket != 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-s.dockerd.Done():
			return crash(wire.StepSocket, 0, "dockerd", s.dockerd)
		case <-ctx.Done():
			return missing(wire.StepSocket, 0, "dockerd has not made its socket "+s.socket())
		}
	}
}

// awaitInfo asks dockerd for its info until it answers.
func (s *Supervisor) awaitInfo(ctx context.Context, emit func(wire.DockerEvent)) (string, error) {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", s.socket())
		},
	}}
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel(nil)
	watching.Go(func() {
		select {
		case <-s.dockerd.Done():
			cancel(errCrash)
		case <-ctx.Done():
		}
	})
	for attempt := 1; ; attempt++ {
		emit(wire.DockerEvent{Step: wire.StepInfo, Attempt: attempt})
		version, err := info(ctx, client, time.Duration(attempt)*infoTimeout)
		if err == nil {
			return version, nil
		}
		timer := time.NewTimer(infoPause)
		select {
		case <-timer.C:
			continue
		case <-ctx.Done():
			timer.Stop()
		}
		if errors.Is(context.Cause(ctx), errCrash) {
			return "", crash(wire.StepInfo, attempt, "dockerd", s.dockerd)
		}
		return "", missing(wire.StepInfo, attempt, fmt.Sprintf("dockerd runs and has its socket, but has not answered info (asked %d times; the last time: %v)", attempt, err))
	}
}

var errCrash = errors.New("dockerd died")

// info asks once and returns the version.
func info(ctx context.Context, client *http.Client, limit time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/info", nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxInfo))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %.200s", resp.Status, body)
	}
	var answer struct{ ServerVersion string }
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", err
	}
	return answer.ServerVersion, nil
}

// crash describes a daemon that died during the start.
func crash(step wire.DockerStep, attempt int, name string, p *process.Process) error {
	exit := p.Exit()
	return &stepError{step: step, attempt: attempt, code: innerdock.CodeDockerFailed, message: died(name, exit), exitCode: &exit.Code}
}

func died(name string, exit child.Exit) string {
	how := "exit code " + strconv.Itoa(exit.Code)
	if exit.Signal != 0 {
		how = unix.SignalName(exit.Signal)
	}
	return name + " exited (" + how + "); the last lines of its log say why"
}
