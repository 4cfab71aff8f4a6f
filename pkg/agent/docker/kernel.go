package docker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/output"
	"github.com/innerdock/innerdock/pkg/agent/process"
	"github.com/innerdock/innerdock/pkg/agent/wire"
)

const cgroupRoot = "/sys/fs/cgroup"

// controllers are the hierarchies of cgroup v1 that gVisor has.
var controllers = []string{"devices", "cpu", "cpuacct", "cpuset", "memory", "pids", "job"}

// prepareKernel sets up what dockerd needs of gVisor's kernel. The firewall
// rules need a program, and dockerd need not wait for it: their result comes
// through the channel, always once.
func (s *Supervisor) prepareKernel(ctx context.Context, req wire.DockerStart) (rules <-chan error, err error) {
	if s.cfg.Root != "" {
		return result(nil), nil
	}
	if err := mountCgroups(); err != nil {
		return nil, fmt.Errorf("mounting the cgroups: %w", err)
	}
	if req.Profile == innerdock.ProfileMinimal {
		return result(nil), nil
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return nil, fmt.Errorf("turning on IP forwarding: %w", err)
	}
	address, err := netip.ParseAddr(req.Address)
	if err != nil || s.rulesFor == address {
		return result(err), nil
	}
	added := make(chan error, 1)
	go func() {
		err := s.addRules(ctx, address)
		if err == nil {
			s.rulesFor = address
		}
		added <- err
	}()
	return added, nil
}

func result(err error) <-chan error {
	c := make(chan error, 1)
	c <- err
	return c
}

// mountCgroups mounts every controller below a tmpfs. What is mounted already
// stays.
func mountCgroups() error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	mounted, err := mountPoints()
	if err != nil {
		return err
	}
	if mounted[filepath.Join(cgroupRoot, controllers[0])] {
		return nil
	}
	if err := os.MkdirAll(cgroupRoot, 0o755); err != nil && !errors.Is(err, syscall.EROFS) {
		return err
	}
	if err := unix.Mount("tmpfs", cgroupRoot, "tmpfs", flags, "mode=755"); err != nil {
		return fmt.Errorf("tmpfs on %s: %w", cgroupRoot, err)
	}
	for _, c := range controllers {
		dir := filepath.Join(cgroupRoot, c)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("cgroup", dir, "cgroup", flags, c); err != nil {
			return fmt.Errorf("%s: %w", c, err)
		}
	}
	return nil
}

func mountPoints() (map[string]bool, error) {
	body, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	points := make(map[string]bool)
	for line := range strings.Lines(string(body)) {
		if f := strings.Fields(line); len(f) > 1 {
			points[f[1]] = true
		}
	}
	return points, nil
}

// rules are the NAT of containers to the world, which gVisor cannot do with
// MASQUERADE, and the walls between bridges that Docker promises.
func rules(address netip.Addr) string {
	return fmt.Sprintf(`*nat
-A POSTROUTING -o eth0 -p tcp -j SNAT --to-source %[1]s
-A POSTROUTING -o eth0 -p udp -j SNAT --to-source %[1]s
COMMIT
*filter
-A FORWARD -i br-+ -o br-+ -j DROP
-A FORWARD -i br-+ -o docker0 -j DROP
-A FORWARD -i docker0 -o br-+ -j DROP
COMMIT
`, address)
}

// addRules adds the rules with one program, in one go.
func (s *Supervisor) addRules(ctx context.Context, address netip.Addr) error {
	env := s.cfg.Environ(nil)
	path, err := process.Lookup("iptables-legacy-restore", "/", env)
	if err != nil {
		path, err = process.Lookup("iptables-restore", "/", env) // before there were two
	}
	if err != nil {
		return errors.New("iptables-legacy-restore not found; install iptables in the image, as Image().with_docker() does")
	}
	log := output.NewBuffer(logTail)
	p, err := process.Start(s.cfg.Reaper, process.Command{Path: path, Args: []string{filepath.Base(path), "--noflush"},
		Dir: "/", Env: env, Stdin: true, Stdout: log})
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.WriteStdin(ctx, strings.NewReader(rules(address)), true); err != nil {
		_ = p.Signal(syscall.SIGKILL)
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		_ = p.Signal(syscall.SIGKILL)
		<-p.Done()
	}
	if code := p.Exit().Code; code != 0 {
		return fmt.Errorf("%s failed (exit code %d): %s", filepath.Base(path), code, strings.TrimSpace(log.Tail(logTail)))
	}
	return nil
}
