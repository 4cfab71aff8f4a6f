// Package native runs the Docker of an image on this machine's own kernel, as
// what Docker in a sandbox is measured against.
package native

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Docker is dockerd of an image's root in mount, network and PID namespaces of
// its own: nothing of the host's network or mounts changes, and its end is the
// end of all that it started. It has no way out of its network.
type Docker struct {
	dir   string
	root  string
	init  *exec.Cmd // PID 1 of the namespaces
	log   bytes.Buffer
	ended chan error
}

// script prepares the namespaces and becomes dockerd. $1 is the root, $2
// Docker's data, $3 the cgroup of its containers.
const script = `set -e
mount --make-rprivate /
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount --rbind /sys "$1/sys"
mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs "$1/run"
mkdir -p "$1/var/lib/docker" "$2"
mount --bind "$2" "$1/var/lib/docker"
ip link set lo up
group=$3
cd "$1"
shift 3
mount --move . / # docker exec enters what is on top of /, whatever this chroot
exec chroot . /usr/bin/dockerd --host=unix:///run/docker.sock --cgroup-parent="$group" "$@"`

// Start extracts a root from its EROFS file and starts its dockerd, with flags
// besides its own defaults.
func Start(ctx context.Context, erofs string, flags ...string) (*Docker, error) {
	dir, err := os.MkdirTemp("/var/tmp", "idk-native-")
	if err != nil {
		return nil, err
	}
	d := &Docker{dir: dir, root: filepath.Join(dir, "root"), ended: make(chan error, 1)}
	if err := d.start(ctx, erofs, flags); err != nil {
		return nil, errors.Join(err, d.Stop())
	}
	return d, nil
}

// Root is where a server with this images directory keeps an image's root.
func Root(images, id string) string {
	return filepath.Join(images, "images", strings.TrimPrefix(id, "sha256:"), "root.erofs")
}

func (d *Docker) start(ctx context.Context, erofs string, flags []string) error {
	if out, err := exec.CommandContext(ctx, "fsck.erofs", "--extract="+d.root, erofs).CombinedOutput(); err != nil {
		return fmt.Errorf("fsck.erofs: %w: %s", err, out)
	}
	d.init = exec.Command("/bin/sh", append([]string{"-c", script, "sh", d.root, filepath.Join(d.dir, "docker"), d.cgroup()}, flags...)...)
	d.init.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID}
	d.init.Stderr = &d.log
	if err := d.init.Start(); err != nil {
		return err
	}
	go func() { d.ended <- d.init.Wait() }()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); <-ticker.C {
		if err := d.Run(ctx, nil, "docker", "info"); err == nil {
			return nil
		}
	}
	return errors.New("the native dockerd does not answer")
}

// cgroup is the parent of its containers' cgroups.
func (d *Docker) cgroup() string { return "/" + filepath.Base(d.dir) }

// PID is the process that its namespaces are known by.
func (d *Docker) PID() int { return d.init.Process.Pid }

// Path is where a path of its root is on this machine.
func (d *Docker) Path(path string) string { return filepath.Join(d.root, path) }

// Command is a command of the root, in the namespaces.
func (d *Docker) Command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{
		"--target", strconv.Itoa(d.PID()), "--mount", "--net", "--pid"}, args...)...)
}

// Run runs a command of the root that must succeed.
func (d *Docker) Run(ctx context.Context, stdin io.Reader, args ...string) error {
	cmd := d.Command(ctx, args...)
	cmd.Stdin = stdin
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("native %q: %w: %s", args, err, out)
	}
	return nil
}

// Stop ends everything and removes what is left of it.
func (d *Docker) Stop() error {
	if d == nil {
		return nil
	}
	var failures error
	if d.init != nil && d.init.Process != nil {
		_ = d.init.Process.Kill()
		if err := <-d.ended; !strings.Contains(fmt.Sprint(err), "killed") {
			failures = fmt.Errorf("the native dockerd had ended before: %w: %s", err, d.log.String())
		}
	}
	return errors.Join(failures, d.removeCgroups(), os.RemoveAll(d.dir))
}

// removeCgroups removes what dockerd, which was killed, could not.
func (d *Docker) removeCgroups() error {
	tops, err := filepath.Glob("/sys/fs/cgroup/*" + d.cgroup())
	if err != nil {
		return err
	}
	var failures error
	for _, top := range append(tops, "/sys/fs/cgroup"+d.cgroup()) {
		var dirs []string
		err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				dirs = append(dirs, path)
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			failures = errors.Join(failures, err)
		}
		slices.Reverse(dirs)
		for _, dir := range dirs {
			failures = errors.Join(failures, syscall.Rmdir(dir))
		}
	}
	return failures
}
