package docker

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/process"
	"github.com/innerdock/innerdock/pkg/agent/wire"
)

// programDir holds links to programs that Docker's daemons find before those of
// the image, and nobody else does.
const programDir = "/run/docker/innerdock-bin"

// daemonEnv is the environment of Docker's daemons.
func (s *Supervisor) daemonEnv(profile innerdock.DockerProfile) ([]string, error) {
	env := s.cfg.Environ(nil)
	links := legacyIPTables(env)
	if _, err := os.Stat(wire.RuncPath); err == nil && fronted(profile) { // minimal is without all of it
		for _, name := range []string{"runc", "containerd-shim-runc-v2"} {
			links[name] = wire.RuncPath
		}
	}
	if len(links) == 0 {
		return env, nil
	}
	dir := s.path(programDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	// Of the time before, which may be another image's: innerdock-runc writes it anew.
	if err := os.Remove(filepath.Join(dir, "runc.version")); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil && !os.IsExist(err) {
			return nil, err
		}
	}
	path := slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, "PATH=") })
	env = slices.Clone(env)
	env[path] = "PATH=" + dir + ":" + strings.TrimPrefix(env[path], "PATH=")
	return env, nil
}

// legacyIPTables returns what dockerd needs for the DNS of user networks where
// the image prefers nftables: gVisor knows only the legacy interface.
func legacyIPTables(env []string) map[string]string {
	links := map[string]string{}
	chosen, err := process.Lookup("iptables", "/", env)
	if err != nil {
		return links
	}
	if real, err := filepath.EvalSymlinks(chosen); err != nil || filepath.Base(real) != "xtables-nft-multi" {
		return links
	}
	for _, name := range []string{"iptables", "ip6tables"} {
		if legacy, err := process.Lookup(name+"-legacy", "/", env); err == nil {
			links[name] = legacy
		}
	}
	return links
}
