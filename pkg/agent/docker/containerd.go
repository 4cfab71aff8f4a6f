package docker

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/process"
	"github.com/innerdock/innerdock/pkg/agent/wire"
)

// containerd is started before dockerd and apart from it, as the packages of
// Docker do with systemd. dockerd finds its socket without a flag. Started by
// dockerd, it costs a second: dockerd's client dials before the socket is there,
// and waits that long before it dials again.
const (
	containerdSocket = "/run/containerd/containerd.sock"
	containerdConfig = "/run/docker/containerd/innerdock.toml"
)

// EventSockets are where containerd takes events: ours, and one that dockerd
// started itself.
var EventSockets = []string{containerdSocket + ".ttrpc", "/var/run/docker/containerd/containerd.sock.ttrpc"}

// containerdTOML is what dockerd's own containerd gets, less the snapshotters
// that find no file system of theirs here.
const containerdTOML = `version = 2
root = "/var/lib/docker/containerd/daemon"
state = "/run/docker/containerd/daemon"
disabled_plugins = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.cri.v1.images",
  "io.containerd.cri.v1.runtime",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "` + containerdSocket + `"
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/docker/containerd/opt"
`

// startContainerd starts containerd and waits for its socket. It leaves alone
// one that runs, ours or not, and an image that has none or wants another.
func (s *Supervisor) startContainerd(ctx context.Context, config daemonConfig, env []string) error {
	if _, ok := config["containerd"]; ok || alive(s.containerd) || dials(s.path(containerdSocket)) {
		return nil
	}
	os.Remove(s.path(containerdSocket)) // dockerd would take it for a live one
	path, err := process.Lookup("containerd", "/", env)
	if err != nil {
		return nil // dockerd says what it lacks
	}
	file := s.path(containerdConfig)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return failedAt(wire.StepDaemon, err)
	}
	if err := os.WriteFile(file, []byte(containerdTOML), 0o644); err != nil {
		return failedAt(wire.StepDaemon, err)
	}
	containerd, err := process.Start(s.cfg.Reaper, process.Command{Path: path,
		Args: []string{"containerd", "--config", file, "--log-level", "warn"}, Dir: "/", Env: env, Stdout: s.log})
	if err != nil {
		return failedAt(wire.StepDaemon, err)
	}
	s.containerd = containerd
	tick := time.NewTicker(pollPause)
	defer tick.Stop()
	for !dials(s.path(containerdSocket)) {
		select {
		case <-tick.C:
		case <-containerd.Done():
			return crash(wire.StepDaemon, 0, "containerd", containerd)
		case <-ctx.Done():
			return missing(wire.StepDaemon, 0, "containerd runs, but its socket "+containerdSocket+" takes no connection")
		}
	}
	return nil
}

// dials reports whether somebody listens on a socket.
func dials(socket string) bool {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// alive reports whether a process runs.
func alive(p *process.Process) bool {
	if p == nil {
		return false
	}
	select {
	case <-p.Done():
		return false
	default:
		return true
	}
}

// missing describes a start that ran out of time.
func missing(step wire.DockerStep, attempt int, what string) error {
	return &stepError{step: step, attempt: attempt, code: innerdock.CodeDockerTimeout, message: what}
}
