package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/forward"
)

const (
	forwarderStart = time.Minute      // for a forwarder to say that it listens
	forwarderStop  = 10 * time.Second // for one to end
	stopPause      = 20 * time.Millisecond
)

// forwarder is the place of a sandbox's forwarder on this machine.
type forwarder struct{ dir, id string }

func (f forwarder) socket() string { return filepath.Join(f.dir, f.id+".sock") }
func (f forwarder) state() string  { return filepath.Join(f.dir, f.id+".json") } // its endpoint
func (f forwarder) log() string    { return filepath.Join(f.dir, f.id+".log") }

// forwarder makes the directory of this user's forwarders, which nobody else may
// enter, and returns the place of one.
func (a *app) forwarder(id string) (forwarder, error) {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("innerdock-%d", os.Getuid()))
	if runtime := a.Getenv("XDG_RUNTIME_DIR"); runtime != "" {
		dir = filepath.Join(runtime, "innerdock")
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return forwarder{}, innerdock.Errorf(innerdock.CodeForbidden, "making a directory for the forwarder: %w; set XDG_RUNTIME_DIR", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return forwarder{}, innerdock.Errorf(innerdock.CodeForbidden, "looking at the forwarder's directory: %w", err)
	}
	owner, known := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 || !known || int(owner.Uid) != os.Getuid() {
		return forwarder{}, innerdock.Errorf(innerdock.CodeForbidden,
			"%s is not a directory of yours that others may not enter; remove it, or set XDG_RUNTIME_DIR", dir)
	}
	return forwarder{dir, id}, nil
}

// running returns the process that listens on the forwarder's socket, 0 for none.
func (f forwarder) running(ctx context.Context) int {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", f.socket())
	if err != nil {
		return 0
	}
	defer func() { _ = conn.Close() }()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	_ = raw.Control(func(fd uintptr) {
		if peer, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(peer.Pid)
		}
	})
	return pid
}

// forwardHere forwards until the sandbox ends or a signal comes. It prints the
// endpoint once it listens.
func (a *app) forwardHere(ctx context.Context, c *innerdock.Client, name string, flags endpointFlags) error {
	sandbox, err := c.Sandbox(ctx, name)
	if err != nil {
		return err
	}
	if _, err := a.awaitDocker(ctx, c, a.progress(), sandbox.ID); err != nil {
		return err
	}
	address, err := flags.parse(sandbox.ID)
	if err != nil {
		return err
	}
	f, err := a.forwarder(sandbox.ID)
	if err != nil {
		return err
	}
	if pid := f.running(ctx); pid != 0 {
		return innerdock.Errorf(innerdock.CodeConflict,
			"process %d forwards this sandbox already; `innerdock docker-host --unset %s` stops it", pid, name)
	}
	_ = os.Remove(f.socket()) // of one that was killed
	listener, err := net.Listen("unix", f.socket())
	if err != nil {
		return innerdock.Errorf(innerdock.CodeUnavailable, "listening for Docker clients: %w", err)
	}
	e := endpoint{"unix://" + f.socket(), address.String()}
	state, _ := json.Marshal(e) // of plain types
	if err := os.WriteFile(f.state(), state, 0o600); err != nil {
		_ = listener.Close()
		return innerdock.Errorf(innerdock.CodeUnavailable, "noting the forwarder: %w", err)
	}
	defer func() { _ = os.Remove(f.state()) }()
	if err := a.printEndpoint(e); err != nil {
		_ = listener.Close()
		return err
	}
	err = forward.Sandbox(ctx, c, sandbox.ID, listener, address, a.report)
	_, signalled := endOf(ctx)
	if signalled || innerdock.CodeOf(err) == innerdock.CodeSandboxTerminated {
		_ = os.Remove(f.log()) // as it should be: nobody asks why
		return ctx.Err()
	}
	return err
}

// forwardInBackground returns the endpoint of the sandbox's forwarder, and starts
// one if none runs. It gets the key by its environment.
func (a *app) forwardInBackground(ctx context.Context, id string, flags endpointFlags) (endpoint, error) {
	address, err := flags.parse(id)
	if err != nil {
		return endpoint{}, err
	}
	f, err := a.forwarder(id)
	if err != nil {
		return endpoint{}, err
	}
	if pid := f.running(ctx); pid != 0 {
		var e endpoint
		state, err := os.ReadFile(f.state())
		if err != nil || json.Unmarshal(state, &e) != nil || e.Address != address.String() {
			return e, innerdock.Errorf(innerdock.CodeConflict,
				"process %d forwards this sandbox already, with other settings; `innerdock docker-host --unset %s` stops it", pid, id)
		}
		return e, nil
	}
	log, err := os.OpenFile(f.log(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return endpoint{}, innerdock.Errorf(innerdock.CodeUnavailable, "opening the forwarder's log: %w", err)
	}
	defer func() { _ = log.Close() }()
	return a.startForwarder(ctx, f, log, address.String())
}

func (a *app) startForwarder(ctx context.Context, f forwarder, log *os.File, address string) (endpoint, error) {
	var e endpoint
	program, err := os.Executable()
	if err != nil {
		return e, innerdock.Errorf(innerdock.CodeInternal, "finding innerdock's own program: %w", err)
	}
	cmd := exec.Command(program, "docker-host", "--foreground", "--quiet", "-o", formatJSON, "--publish-address", address, f.id)
	cmd.Args[0] = "innerdock"
	cmd.Env = append(os.Environ(), "INNERDOCK_HOST="+a.server())
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C in this terminal is not for it
	said, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return e, innerdock.Errorf(innerdock.CodeInternal, "starting the forwarder: %w", err)
	}
	limited, cancel := context.WithTimeout(ctx, forwarderStart)
	defer cancel()
	defer context.AfterFunc(limited, func() { _ = cmd.Process.Kill() })()
	if line, err := bufio.NewReader(said).ReadBytes('\n'); err == nil && json.Unmarshal(line, &e) == nil {
		return e, cmd.Process.Release()
	}
	_ = cmd.Wait() // why it failed is in its log
	if err := limited.Err(); err != nil {
		return e, err
	}
	why := &innerdock.Error{}
	text, err := os.ReadFile(f.log())
	if err != nil || json.Unmarshal(text, why) != nil {
		return e, innerdock.Errorf(innerdock.CodeUnavailable, "the forwarder did not start; its log is %s", f.log())
	}
	return e, why
}

// stopForwarder ends the sandbox's forwarder, if there is one, and waits for it.
func (a *app) stopForwarder(ctx context.Context, id string) error {
	f, err := a.forwarder(id)
	if err != nil {
		return err
	}
	pid := f.running(ctx)
	if pid == 0 {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return innerdock.Errorf(innerdock.CodeForbidden, "stopping the forwarder, process %d: %w", pid, err)
	}
	ctx, cancel := context.WithTimeout(ctx, forwarderStop)
	defer cancel()
	ticker := time.NewTicker(stopPause)
	defer ticker.Stop()
	for f.running(ctx) == pid {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return innerdock.Errorf(innerdock.CodeTimeout, "the forwarder, process %d, does not end", pid)
		}
	}
	return nil
}
