package docker

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/innerdock/innerdock/pkg/agent/process"
)

// legacyDir holds links by which dockerd finds the iptables that gVisor has.
const legacyDir = "/run/docker/innerdock-bin"

// daemonEnv is the environment of dockerd. dockerd calls iptables for the DNS of
// user networks, and gVisor knows only the legacy interface; where the image
// prefers nftables, dockerd alone gets a PATH on which legacy comes first.
func (s *Supervisor) daemonEnv() ([]string, error) {
	env := s.cfg.Environ(nil)
	chosen, err := process.Lookup("iptables", "/", env)
	if err != nil {
		return env, nil
	}
	if real, err := filepath.EvalSymlinks(chosen); err != nil || filepath.Base(real) != "xtables-nft-multi" {
		return env, nil
	}
	dir := s.path(legacyDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	for _, name := range []string{"iptables", "ip6tables"} {
		legacy, err := process.Lookup(name+"-legacy", "/", env)
		if err != nil {
			return env, nil
		}
		if err := os.Symlink(legacy, filepath.Join(dir, name)); err != nil && !os.IsExist(err) {
			return nil, err
		}
	}
	path := slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, "PATH=") })
	env = slices.Clone(env)
	env[path] = "PATH=" + dir + ":" + strings.TrimPrefix(env[path], "PATH=")
	return env, nil
}
