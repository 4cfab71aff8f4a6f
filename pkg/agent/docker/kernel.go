package docker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/wire"
)

const cgroupRoot = "/sys/fs/cgroup"

// MemoryCgroups is where the cgroups' memory is limited.
const MemoryCgroups = cgroupRoot + "/memory"

// maxKeys are the keys that a user may have. gVisor counts a container's session
// keyring for ever, and with its default of 200 it starts no more than so many
// containers. Linux gives root a million.
const (
	maxKeysFile = "/proc/sys/kernel/keys/maxkeys"
	maxKeys     = "1000000"
)

// controllers are the hierarchies of cgroup v1 that gVisor has.
var controllers = []string{"devices", "cpu", "cpuacct", "cpuset", "memory", "pids", "job"}

// prepareKernel sets up what dockerd needs of gVisor's kernel. The firewall
// rules need a program, and dockerd need not wait for it: their result comes
// through the channel, always once.
func (s *Supervisor) prepareKernel(ctx context.Context, req wire.DockerStart) (<-chan error, error) {
	if s.cfg.Root != "" {
		return result(nil), nil
	}
	if err := mountCgroups(); err != nil {
		return nil, fmt.Errorf("mounting the cgroups: %w", err)
	}
	if err := os.WriteFile(maxKeysFile, []byte(maxKeys), 0o644); err != nil {
		return nil, fmt.Errorf("raising the number of keys: %w", err)
	}
	if err := s.cfg.Guard.Start(ctx); err != nil {
		return nil, fmt.Errorf("watching the cgroups' memory: %w", err)
	}
	if req.Profile == innerdock.ProfileMinimal {
		return result(nil), nil
	}
	if err := forward(); err != nil {
		return nil, err
	}
	address, err := netip.ParseAddr(req.Address)
	if err != nil || s.rulesFor == address {
		return result(err), nil
	}
	added := make(chan error, 1)
	go func() {
		err := s.restoreRules(ctx, rules(address, protocols))
		if err != nil { // nothing of them is in force
			err = s.restoreRules(ctx, rules(address, protocols[:2]))
		}
		if err == nil {
			s.rulesFor, s.isolated = address, nil
		}
		added <- err
	}()
	return added, nil
}

// forward lets packets pass between networks.
func forward() error {
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return fmt.Errorf("turning on IP forwarding: %w", err)
	}
	return nil
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
		mount := func(dir string) error { return unix.Mount("cgroup", dir, "cgroup", flags, c) }
		if c == "pids" {
			err = confineTasks(dir, mount)
		} else {
			err = mount(dir)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c, err)
		}
	}
	return nil
}

// mostTasks is what gVisor's cgroups can limit.
const mostTasks = 4 << 20

// confineTasks moves every process into a cgroup of its own and mounts that in
// dir, as if it were the root of the hierarchy: Docker makes the cgroups of its
// containers below it. Its limit is PID 1's RLIMIT_NPROC, which does not bind
// root here.
func confineTasks(dir string, mount func(dir string) error) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &limit); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	if limit.Cur > mostTasks {
		return mount(dir)
	}
	root := dir + ".root"
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	if err := mount(root); err != nil {
		return err
	}
	all := filepath.Join(root, "sandbox")
	if err := os.Mkdir(all, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(all, "pids.max"), []byte(strconv.FormatUint(limit.Cur, 10)), 0o644); err != nil {
		return err
	}
	if err := moveTasks(root, all); err != nil {
		return err
	}
	if err := unix.Mount(all, dir, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	// A program that another goroutine starts right now may hold one of its files
	// until it executes: the mount goes when that is closed.
	if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
		return err
	}
	return os.Remove(root)
}

// moveTasks moves all processes of one cgroup to another, until none is left: a
// process that starts meanwhile is where its parent was.
func moveTasks(from, to string) error {
	for {
		text, err := os.ReadFile(filepath.Join(from, "cgroup.procs"))
		if err != nil || len(text) == 0 {
			return err
		}
		for pid := range strings.FieldsSeq(string(text)) {
			err := os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte(pid), 0o644)
			if err != nil && !errors.Is(err, syscall.ESRCH) && !errors.Is(err, syscall.EAGAIN) {
				return err
			}
		}
	}
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
