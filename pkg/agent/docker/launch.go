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
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/child"
	"github.com/innerdock/innerdock/pkg/agent/docker/kept"
	"github.com/innerdock/innerdock/pkg/agent/docker/portproxy"
	"github.com/innerdock/innerdock/pkg/agent/process"
	"github.com/innerdock/innerdock/pkg/agent/wire"
)

const (
	pollPause   = 10 * time.Millisecond // between looks at the socket
	infoPause   = 25 * time.Millisecond // between questions
	infoTimeout = 2 * time.Second       // of the first question; each next one has that much more
	maxAnswer   = 8 << 20
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
	if err := errors.Join(s.prepareRunDir(), s.open(req.Profile)); err != nil {
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
	if err == nil && fronted(req.Profile) { // minimal has no networks
		client := clientOf(s.path(daemonSocket(req.Profile)))
		defer client.CloseIdleConnections()
		if err := s.isolate(ctx, client); err != nil {
			return "", failedAt(wire.StepKernel, err)
		}
	}
	return version, err
}

// prepareRunDir makes the directories of dockerd's sockets and the program for published ports, and removes
// what a dockerd that did not end by itself left there: with its PID taken by another, dockerd would not start.
func (s *Supervisor) prepareRunDir() error {
	for _, socket := range []string{publicSocket, privateSocket} {
		if err := os.MkdirAll(filepath.Dir(s.path(socket)), 0o755); err != nil {
			return err
		}
	}
	if err := os.Symlink(wire.AgentPath, s.path(portproxy.Path)); err != nil && !errors.Is(err, os.ErrExist) {
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

// runDaemons starts containerd and dockerd and waits for dockerd's answer.
func (s *Supervisor) runDaemons(ctx context.Context, path string, req wire.DockerStart, emit func(wire.DockerEvent)) (string, error) {
	emit(wire.DockerEvent{Step: wire.StepDaemon})
	config, err := s.configure(req)
	if err != nil {
		return "", failedAt(wire.StepDaemon, err)
	}
	env, err := s.daemonEnv(req.Profile)
	if err != nil {
		return "", failedAt(wire.StepDaemon, err)
	}
	if err := s.startContainerd(ctx, config, env); err != nil {
		return "", err
	}
	if req.Profile != innerdock.ProfileMinimal { // which has another store
		if err := kept.Lend(s.path(keptDir), s.path(dataDir)); err != nil {
			return "", failedAt(wire.StepDaemon, fmt.Errorf("lending Docker the images of the root: %w", err))
		}
	}
	flags := arguments(req, config)
	if err := s.startDockerd(path, flags, env); err != nil {
		return "", failedAt(wire.StepDaemon, err)
	}
	emit(wire.DockerEvent{Step: wire.StepSocket})
	socket := s.path(daemonSocket(req.Profile))
	err = s.awaitSocket(ctx, socket)
	if err != nil && !alive(s.dockerd) && strings.Contains(s.log.Tail(logTail), "unknown flag: "+networkOption) {
		old := slices.DeleteFunc(flags, func(f string) bool { return strings.HasPrefix(f, networkOption) })
		if err := s.startDockerd(path, old, env); err != nil {
			return "", failedAt(wire.StepDaemon, err)
		}
		err = s.awaitSocket(ctx, socket)
	}
	if err != nil {
		return "", err
	}
	return s.awaitInfo(ctx, socket, emit)
}

// startDockerd starts dockerd, unless it runs.
func (s *Supervisor) startDockerd(path string, flags, env []string) error {
	if alive(s.dockerd) {
		return nil
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
func (s *Supervisor) awaitSocket(ctx context.Context, socket string) error {
	tick := time.NewTicker(pollPause)
	defer tick.Stop()
	for {
		if info, err := os.Stat(socket); err == nil && info.Mode()&os.ModeSocket != 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-s.dockerd.Done():
			return crash(wire.StepSocket, 0, "dockerd", s.dockerd)
		case <-ctx.Done():
			return missing(wire.StepSocket, 0, "dockerd has not made its socket "+socket)
		}
	}
}

// awaitInfo asks dockerd for its info until it answers.
func (s *Supervisor) awaitInfo(ctx context.Context, socket string, emit func(wire.DockerEvent)) (string, error) {
	client := clientOf(socket)
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
		answer, err := info(ctx, client, time.Duration(attempt)*infoTimeout)
		if err == nil && s.knowsContainerd(answer) {
			return answer.ServerVersion, nil
		}
		if err == nil {
			err = errors.New("it has not found containerd again")
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

// daemonInfo is what matters of dockerd's info.
type daemonInfo struct {
	ServerVersion    string
	ContainerdCommit struct{ ID string }
}

// info asks once.
func info(ctx context.Context, client *http.Client, limit time.Duration) (daemonInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var answer daemonInfo
	err := get(ctx, client, "/info", &answer)
	return answer, err
}

// knowsContainerd reports whether dockerd is in touch with containerd: then it
// says of it what it said at first. It dials one that is restarted only after a
// second, and until then starts no container.
func (s *Supervisor) knowsContainerd(answer daemonInfo) bool {
	id := answer.ContainerdCommit.ID
	if s.containerdID == "" {
		s.containerdID = id
	}
	return id == s.containerdID
}

// clientOf returns a client of the dockerd that listens on socket.
func clientOf(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
}

// get asks dockerd and decodes its answer.
func get(ctx context.Context, client *http.Client, path string, answer any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker"+path, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %.200s", resp.Status, body)
	}
	return json.Unmarshal(body, answer)
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
