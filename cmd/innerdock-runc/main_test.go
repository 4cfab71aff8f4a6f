package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestTheNextProgramIsFound(t *testing.T) {
	ours, theirs, neither, directory := t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()
	for file, mode := range map[string]os.FileMode{filepath.Join(theirs, "runc"): 0o700, filepath.Join(neither, "runc"): 0o600} {
		if err := os.WriteFile(file, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(directory, "runc"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/proc/self/exe", filepath.Join(ours, "runc")); err != nil {
		t.Fatal(err)
	}
	var got name
	if !another("runc", strings.Join([]string{"", ours, strings.Repeat("/long", 400), directory, neither, theirs, ours}, ":"), &got) || got.String() != filepath.Join(theirs, "runc") {
		t.Errorf("%q", got.String())
	}
	if another("runc", ours+":"+neither, &got) {
		t.Errorf("without one, it is %q", got.String())
	}
}

// build builds the program as it is in a sandbox, and links it as runc and the shim.
func build(t *testing.T) (dir string) {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("the program begins in main")
	}
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

func TestWithoutARuntime(t *testing.T) {
	ours, theirs := build(t), t.TempDir()
	for _, name := range []string{"runc", shim} {
		if err := os.WriteFile(filepath.Join(theirs, name), []byte("#!/bin/sh\necho \"$0 $MARK $*\"\nexit 42\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// do runs one of the two as Docker's daemons do.
	do := func(in string, args ...string) (out string, code int) {
		cmd := exec.CommandContext(t.Context(), filepath.Join(ours, args[0]), args[1:]...)
		cmd.Args = args
		cmd.Env = []string{"A=", "PATH=" + ours + ":" + theirs, "MARK=mark"}
		cmd.Stdin = strings.NewReader(in)
		said, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() < 0 {
			t.Fatalf("%q: %v: %s", args, err, said)
		}
		return string(said), cmd.ProcessState.ExitCode()
	}
	root := t.TempDir()
	many := slices.Repeat([]string{"x"}, 1000)
	for _, args := range [][]string{{"runc"}, {"runc", "--root", root, "delete", "none"}, {shim, "-namespace", "n", "start"}, slices.Concat([]string{"runc"}, many), {"runc", "", "a b", strings.Repeat("y", 100_000)}} {
		want := theirs + "/" + args[0] + " mark " + strings.Join(args[1:], " ") + "\n"
		if out, code := do("", args...); out != want || code != 42 {
			t.Errorf("%.200q became %.200q, %d", args, out, code)
		}
	}

	record, cgroup := over(t)
	dir := container(t, root, record)
	if out, code := do("", runc(root, "delete", id).args...); code != 0 || out != "" || !missing(dir) || !missing(cgroup) {
		t.Errorf("a container is not removed: %s, %d", out, code)
	}
	if out, code := do("", runc(root, "delete", "--force", id).args...); code != 0 || out != "" {
		t.Errorf("that it is gone is not found: %s, %d", out, code)
	}
	fifo := filepath.Join(container(t, root, nil), "exec.fifo")
	if err := syscall.Mkfifo(fifo, 0o622); err != nil {
		t.Fatal(err)
	}
	said := goOn(t, fifo)
	if out, code := do("", runc(root, "start", id).args...); code != 0 || out != "" {
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
	if out, code := do("", "runc", "create", "--bundle", bundle, id); code != 42 {
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
	if out, code := do("", append([]string{shim}, args...)...); code != 0 || !strings.HasPrefix(out, "\x08\xe7\x24\x10\x89\x01\x1a") {
		t.Errorf("%q, %d", out, code)
	}
	if err := os.WriteFile(filepath.Join(bundle, "init.pid"), []byte(strconv.Itoa(1)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, code := do("", append([]string{shim}, args...)...); code != 42 {
		t.Error("the shim is not asked")
	}
}
