package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// build builds the program as it is in a sandbox, and links it as runc and the shim.
func build(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-gcflags=-m", "-ldflags=-E main.entry", "-o", dir+"/innerdock-runc", ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	said, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	for line := range strings.Lines(string(said)) {
		if strings.HasSuffix(line, "escapes to heap\n") || strings.Contains(line, "moved to heap") {
			t.Error("memory is allocated, for which there is no runtime: " + line)
		}
	}
	for _, name := range []string{"runc", shim} {
		if err := os.Symlink("innerdock-runc", filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// daemons are Docker's, in whose PATH this program, in ours, comes before the others.
type daemons struct{ ours, theirs string }

func newDaemons(t *testing.T) daemons {
	t.Helper()
	d := daemons{build(t), t.TempDir()}
	for _, name := range []string{"runc", shim} {
		d.install(t, name, `echo "$0 $MARK $*"; exit 42`)
	}
	return d
}

// install makes another program.
func (d daemons) install(t *testing.T, name, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(d.theirs, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
}

// run starts a program as they do.
func (d daemons) run(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(d.ours, args[0]), args[1:]...)
	cmd.Args = args
	cmd.Env = []string{"A=", "PATH=" + d.ours + ":" + d.theirs, "MARK=mark"}
	said, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() < 0 {
		t.Fatalf("%q: %v: %s", args, err, said)
	}
	return string(said), cmd.ProcessState.ExitCode()
}

func TestWithoutARuntime(t *testing.T) {
	d := newDaemons(t)
	ours, theirs := d.ours, d.theirs
	root := t.TempDir()
	many := slices.Repeat([]string{"x"}, 1000)
	for _, args := range [][]string{{"runc"}, {"runc", "--root", root, "delete", "none"}, {shim, "-namespace", "n", "start"}, slices.Concat([]string{"runc"}, many), {"runc", "", "a b", strings.Repeat("y", 100_000)}} {
		want := theirs + "/" + args[0] + " mark " + strings.Join(args[1:], " ") + "\n"
		if out, code := d.run(t, args...); out != want || code != 42 {
			t.Errorf("%.200q became %.200q, %d", args, out, code)
		}
	}

	record, cgroup := over(t)
	dir := container(t, root, record)
	if out, code := d.run(t, runc(root, "delete", id).args...); code != 0 || out != "" || !missing(dir) || !missing(cgroup) {
		t.Errorf("a container is not removed: %s, %d", out, code)
	}
	if out, code := d.run(t, runc(root, "delete", "--force", id).args...); code != 0 || out != "" {
		t.Errorf("that it is gone is not found: %s, %d", out, code)
	}
	fifo := filepath.Join(container(t, root, nil), "exec.fifo")
	if err := syscall.Mkfifo(fifo, 0o622); err != nil {
		t.Fatal(err)
	}
	said := goOn(t, fifo)
	if out, code := d.run(t, runc(root, "start", id).args...); code != 0 || out != "" {
		t.Errorf("it is not started: %s, %d", out, code)
	}
	if err := said.Wait(); err != nil {
		t.Error(err)
	}

	bundle := t.TempDir()
	config := filepath.Join(bundle, "config.json")
	if err := os.WriteFile(config, []byte(`{"prestart":[{"path":"/proc/12/exe","args":["libnetwork-setkey"]}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := d.run(t, "runc", "create", "--bundle", bundle, id); code != 42 {
		t.Errorf("%s, %d", out, code)
	}
	if got, err := os.ReadFile(config); err != nil || string(got) != `{"prestart":[{"path":"`+ours+`/innerdock-runc","args":["libnetwork-setkey"]}]}` {
		t.Errorf("%s, %v", got, err)
	}
	libnetwork, heard := dockerd(t, "success")
	hook := exec.CommandContext(t.Context(), filepath.Join(ours, "innerdock-runc"))
	hook.Args, hook.Stdin = []string{setKey, "-exec-root=" + libnetwork, "c0", "short"}, strings.NewReader(state)
	if out, err := hook.CombinedOutput(); err != nil || <-heard == "" {
		t.Errorf("%v: %s", err, out)
	}
	hook = exec.CommandContext(t.Context(), filepath.Join(ours, "innerdock-runc"))
	hook.Args, hook.Stdin = []string{setKey, "-exec-root=" + t.TempDir(), "c0", "short"}, strings.NewReader(state)
	if out, _ := hook.CombinedOutput(); string(out) != "innerdock-runc: dockerd does not listen for networks\n" || hook.ProcessState.ExitCode() != 1 {
		t.Errorf("%s, %d", out, hook.ProcessState.ExitCode())
	}

	bundle, args := cleanedBundle(t, root)
	if out, code := d.run(t, append([]string{shim}, args...)...); code != 0 || !strings.HasPrefix(out, "\x08\xe7\x24\x10\x89\x01\x1a") {
		t.Errorf("%q, %d", out, code)
	}
	if err := os.WriteFile(filepath.Join(bundle, "init.pid"), []byte(strconv.Itoa(1)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, code := d.run(t, append([]string{shim}, args...)...); code != 42 {
		t.Error("the shim is not asked")
	}
}

func TestTheVersionIsKept(t *testing.T) {
	d := newDaemons(t)
	asked := filepath.Join(t.TempDir(), "asked")
	wants := func(want string, wantCode, wantAsked int) {
		t.Helper()
		if out, code := d.run(t, "runc", "--version"); out != want || code != wantCode {
			t.Errorf("it is %q, %d; want %q, %d", out, code, want, wantCode)
		}
		if times, _ := os.ReadFile(asked); len(times) != wantAsked {
			t.Errorf("runc was asked %d times, want %d", len(times), wantAsked)
		}
	}
	d.install(t, "runc", "printf x >> "+asked+"; echo runc version 1; exit 3")
	wants("runc version 1\n", 3, 1) // a failure is not kept
	d.install(t, "runc", "printf x >> "+asked+"; echo runc version 2; echo spec: 1")
	tick(t, filepath.Join(d.theirs, "runc"))
	wants("runc version 2\nspec: 1\n", 0, 2)
	wants("runc version 2\nspec: 1\n", 0, 2)
	if out, code := d.run(t, "runc", "--version", "x"); out != "runc version 2\nspec: 1\n" || code != 0 {
		t.Errorf("%q, %d", out, code)
	}
	wants("runc version 2\nspec: 1\n", 0, 3)
	if out, _ := d.run(t, shim, "--version"); out != d.theirs+"/"+shim+" mark --version\n" {
		t.Errorf("the shim's version is %q", out)
	}
	tick(t, filepath.Join(d.ours, "runc.version"))
	d.install(t, "runc", "printf x >> "+asked+"; echo runc version 3")
	wants("runc version 3\n", 0, 4)
	for _, broken := range []string{"", "runc version 4\n", "/elsewhere/runc\nrunc version 4\n", d.theirs + "/runc\n"} {
		if err := os.WriteFile(filepath.Join(d.ours, "runc.version"), []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, _ := d.run(t, "runc", "--version"); out != "runc version 3\n" {
			t.Errorf("after %q it is %q", broken, out)
		}
	}
}

// tick waits until the clock of the file system has gone on since a file was changed.
func tick(t *testing.T, changed string) {
	t.Helper()
	then, err := os.Stat(changed)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "now")
	for {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		now, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if now.ModTime().After(then.ModTime()) {
			return
		}
	}
}
