package docker

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/docker/front"
	"github.com/innerdock/innerdock/pkg/agent/wire"
)

// callLimit is how long a call waits for a dockerd that starts.
const callLimit = time.Minute

// Open announces that Docker will be started: calls from now on wait for that.
// Where dockerd is behind the front, its public socket is there afterwards.
func (s *Supervisor) Open(ctx context.Context, profile innerdock.DockerProfile) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.release()
	if err := s.open(profile); err != nil {
		return err
	}
	if s.Report().State == innerdock.DockerDisabled {
		report := s.Report()
		report.State, report.Profile = innerdock.DockerStarting, profile
		s.set(report)
	}
	return nil
}

// open makes the public socket, once.
func (s *Supervisor) open(profile innerdock.DockerProfile) error {
	if s.opened || !fronted(profile) {
		return nil
	}
	if err := s.prepareRunDir(); err != nil {
		return err
	}
	l, err := front.Listen(s.path(publicSocket), s.socketGroup())
	if err != nil {
		return err
	}
	s.opened = true
	s.front.Serve(l)
	return nil
}

// socketGroup is the group that may call dockerd: the one that daemon.json
// names, else docker, if there is such a group, else root's.
func (s *Supervisor) socketGroup() int {
	name := "docker"
	if config, err := readConfig(s.path("/etc/docker/daemon.json")); err == nil {
		_ = json.Unmarshal(config["group"], &name) // dockerd complains
	}
	if gid, err := strconv.Atoi(name); err == nil {
		return gid
	}
	file, err := os.Open(s.path("/etc/group"))
	if err != nil {
		return 0
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) < 3 || fields[0] != name {
			continue
		}
		if gid, err := strconv.Atoi(fields[2]); err == nil {
			return gid
		}
	}
	return 0
}

// Handler serves the Docker API to those who come in by another way than the
// public socket. If a connection has a method CloseWrite, it can be closed half.
func (s *Supervisor) Handler() http.Handler { return s.front }

// Connect connects to dockerd itself. It waits for one that is starting or being
// restarted; its error says what the matter is, for the caller of the API.
func (s *Supervisor) Connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	tick := time.NewTicker(pollPause)
	defer tick.Stop()
	var dialer net.Dialer
	for {
		report, err := s.awaitReady(ctx)
		if err != nil {
			return nil, err
		}
		conn, err := dialer.DialContext(ctx, "unix", cmp.Or(s.cfg.Dockerd, s.path(daemonSocket(report.Profile))))
		if err == nil {
			return conn, nil
		}
		select {
		case <-tick.C: // it died, and its end is noticed in a moment
		case <-ctx.Done():
			return nil, unavailable(report)
		}
	}
}

// Wait waits for a dockerd that is starting or being restarted.
func (s *Supervisor) Wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	_, err := s.awaitReady(ctx)
	return err
}

func (s *Supervisor) awaitReady(ctx context.Context) (wire.DockerReport, error) {
	if s.cfg.Dockerd != "" {
		return wire.DockerReport{State: innerdock.DockerReady}, nil
	}
	for {
		report, changed := s.current()
		switch report.State {
		case innerdock.DockerReady:
			return report, nil
		case innerdock.DockerStarting, innerdock.DockerRestarting:
		default:
			return report, unavailable(report)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return report, unavailable(report)
		}
	}
}

// unavailable says why a call is not answered.
func unavailable(report wire.DockerReport) error {
	const look = "`innerdock logs --docker` has its log"
	var message string
	switch report.State {
	case innerdock.DockerStarting:
		message = fmt.Sprintf("Docker is still starting in this sandbox, and has not answered for %.0f s; try again, or give the sandbox more cpu and memory; %s", callLimit.Seconds(), look)
	case innerdock.DockerRestarting:
		message = fmt.Sprintf("Docker is being restarted in this sandbox, and has not answered for %.0f s (%s); try again; %s", callLimit.Seconds(), report.Reason, look)
	case innerdock.DockerFailed:
		message = fmt.Sprintf("Docker has failed in this sandbox: %s; %s, and a new sandbox starts afresh", report.Reason, look)
	case innerdock.DockerReady:
		message = "dockerd runs, but takes no connection; " + look
	default:
		message = "Docker does not run in this sandbox: it was not started, or has been stopped"
	}
	return innerdock.Errorf(innerdock.CodeUnavailable, "%s", message)
}

// networksChanged is called by the front before a client hears of a new network.
func (s *Supervisor) networksChanged(ctx context.Context) error {
	profile := s.Report().Profile
	if !fronted(profile) {
		return nil
	}
	client := clientOf(s.path(daemonSocket(profile)))
	defer client.CloseIdleConnections()
	return s.isolate(ctx, client)
}
