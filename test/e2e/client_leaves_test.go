package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// clients is how many leave at once, and others as many files as others may have
// opened meanwhile.
const clients, others = 6, 1

// closing returns a check that what is opened from now on has been closed, in the
// sandbox and in the server.
func (d *dockerClient) closing() (check func()) {
	agent, server := d.open()
	files := func() string {
		return d.server.sh(d.t, d.sandbox.ID, "ls -l /proc/1/fd | sed 's/.* [0-9:]* \\([0-9]* -> \\)/\\1/'")
	}
	before := files()
	return func() {
		// The door keeps connections to the daemon that are idle, for a minute.
		ctx, cancel := context.WithTimeout(d.t.Context(), patience)
		defer cancel()
		if err := until(ctx, func() error {
			nowAgent, nowServer := d.open()
			if nowAgent > agent+others || nowServer > server+others {
				return fmt.Errorf("the agent has %d files open and had %d, the server %d and %d", nowAgent, agent, nowServer, server)
			}
			return nil
		}); err != nil {
			d.t.Errorf("%v; the agent's files were\n%s\nand are\n%s", err, before, files())
		}
	}
}

// What a client that is killed while it is attached had open is closed, although
// its container says nothing.
func (d *dockerClient) checkVanishing() {
	check := d.closing()
	attached := d.events("box", "attach")
	for range clients {
		cmd := d.command(d.t.Context(), "docker", "attach", "--sig-proxy=false", "box")
		stdin, err := cmd.StdinPipe()
		if err != nil {
			d.t.Fatal(err)
		}
		defer stdin.Close()
		if err := cmd.Start(); err != nil {
			d.t.Fatal(err)
		}
		attached.next()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	attached.end()
	check()
}

// Ctrl-C ends a build, and what it runs, and the daemon is well afterwards.
func (d *dockerClient) checkInterrupts() {
	d.file("slow/Dockerfile", "FROM busybox:latest\nRUN sleep 4321\n")
	cmd := d.command(d.t.Context(), "docker", "build", "--progress=plain", "slow")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	running := func() bool {
		processes := d.server.sh(d.t, d.sandbox.ID, "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done 2>/dev/null; true")
		return strings.Contains(processes, "\nsleep 4321 ") || strings.Contains(processes, "\n/bin/sh -c sleep 4321 ")
	}
	eventually(d.t, func() error {
		if !running() {
			return errors.New("the build does not run")
		}
		return nil
	})
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
	_ = cmd.Wait()
	if cmd.ProcessState.Success() {
		d.t.Error("an interrupted build succeeds")
	}
	eventually(d.t, func() error {
		if running() {
			return errors.New("the build runs on")
		}
		return nil
	})
	d.run("", "version")
}

// Ctrl-C ends pulls from a registry that stalls in the middle of a layer; the daemon
// alone goes on waiting for it, as natively.
func (d *dockerClient) checkInterruptedPull() {
	registry, err := os.Open("python/faulty_registry.py")
	if err != nil {
		d.t.Fatal(err)
	}
	defer registry.Close()
	if _, err := d.server.client.WriteFile(d.t.Context(), d.sandbox.ID, "/opt/registry.py", 0o644, registry); err != nil {
		d.t.Fatal(err)
	}
	d.server.sh(d.t, d.sandbox.ID, "setsid python3 /opt/registry.py >/tmp/said & until grep -q listening /tmp/said; do sleep 0.1; done")
	check := d.closing()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	var pulls []*exec.Cmd
	for range clients {
		cmd := d.command(ctx, "docker", "pull", "127.0.0.1:5000/stalled/image:1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		out, err := cmd.StdoutPipe()
		if err != nil {
			d.t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			d.t.Fatal(err)
		}
		pulls = append(pulls, cmd)
		for lines := bufio.NewScanner(out); lines.Scan() && !strings.HasSuffix(lines.Text(), "Pulling fs layer"); {
		}
	}
	for _, cmd := range pulls {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
		_ = cmd.Wait()
		if ctx.Err() != nil || cmd.ProcessState.Success() {
			d.t.Errorf("an interrupted pull ends with %v", cmd.ProcessState)
		}
	}
	check()
	d.run("", "version")
	d.server.sh(d.t, d.sandbox.ID, "pkill -f /opt/registry.p[y]")
}
