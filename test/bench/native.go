package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// native is dockerd of an image's root, on the host's own kernel, in mount,
// network and PID namespaces of its own: nothing of the host's network or
// mounts changes, and its end is the end of all that it started.
type native struct {
	dir   string
	root  string
	init  *exec.Cmd // PID 1 of the namespaces
	log   bytes.Buffer
	ended chan error
}

// script prepares the namespaces and becomes dockerd. $1 is the root, $2
// Docker's data.
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
exec chroot "$1" /usr/bin/dockerd --host=unix:///run/docker.sock`

// startNative extracts the image's root, starts its dockerd and loads the image
// archive into it. Without an images directory there is no native Docker: nil.
func startNative(ctx context.Context, images, id string, archive []byte) (*native, error) {
	if images == "" {
		return nil, nil
	}
	dir, err := os.MkdirTemp("/var/tmp", "idk-native-")
	if err != nil {
		return nil, err
	}
	n := &native{dir: dir, root: filepath.Join(dir, "root"), ended: make(chan error, 1)}
	if err := n.start(ctx, filepath.Join(images, "images", strings.TrimPrefix(id, "sha256:"), "root.erofs"), archive); err != nil {
		return nil, errors.Join(err, n.stop())
	}
	return n, nil
}

func (n *native) start(ctx context.Context, erofs string, archive []byte) error {
	if out, err := exec.CommandContext(ctx, "fsck.erofs", "--extract="+n.root, erofs).CombinedOutput(); err != nil {
		return fmt.Errorf("fsck.erofs: %w: %s", err, out)
	}
	n.init = exec.Command("/bin/sh", "-c", script, "sh", n.root, filepath.Join(n.dir, "docker"))
	n.init.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID}
	n.init.Stderr = &n.log
	if err := n.init.Start(); err != nil {
		return err
	}
	go func() { n.ended <- n.init.Wait() }()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); <-ticker.C {
		if err := n.exec(ctx, nil, "docker", "info"); err == nil {
			return n.exec(ctx, bytes.NewReader(archive), "docker", "load")
		}
	}
	return errors.New("the native dockerd does not answer")
}

// exec runs a command of the root in the namespaces.
func (n *native) exec(ctx context.Context, stdin io.Reader, args ...string) error {
	args = append([]string{"--target", strconv.Itoa(n.init.Process.Pid), "--mount", "--net", "--pid", "chroot", n.root}, args...)
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	cmd.Stdin = stdin
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("native %q: %w: %s", args, err, out)
	}
	return nil
}

func (n *native) stop() error {
	if n == nil {
		return nil
	}
	if n.init != nil && n.init.Process != nil {
		_ = n.init.Process.Kill()
		if err := <-n.ended; !strings.Contains(fmt.Sprint(err), "killed") {
			return fmt.Errorf("the native dockerd had ended before: %w: %s", err, n.log.String())
		}
	}
	return os.RemoveAll(n.dir)
}
