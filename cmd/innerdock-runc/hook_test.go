package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOnlyTheHookOfTheNetworkIsRedirected(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const hook = `"hooks":{"prestart":[{"path":"/proc/12/exe","args":["libnetwork-setkey","-exec-root=/run/docker","c","s"]}]}`
	for before, after := range map[string]string{
		`{"process":{"args":["true"]},` + hook + `}`: `{"process":{"args":["true"]},` + strings.Replace(hook, "/proc/12/exe", self, 1) + `}`,
		`{"process":{"args":["true"]}}`:              "",
		// An environment that looks like the hook, as JSON.
		`{"process":{"env":["X=\"path\":\"/proc/1/exe\",\"args\":[\"libnetwork-setkey\""]}}`: "",
		`{"hooks":{"prestart":[{"path":"/usr/bin/mine","args":["libnetwork-setkey"]}]}}`:     "",
		`{"hooks":{"prestart":[{"args":["other"],"path":"/proc/12/exe"}]}}`:                  "",
		`{"a":1,"args":["libnetwork-setkey"]}`:                                               "",
		``:                                                                                   "",
	} {
		if after == "" {
			after = before
		}
		bundle := t.TempDir()
		file := filepath.Join(bundle, "config.json")
		if err := os.WriteFile(file, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		if why := redirected([]string{"runc", "create", "--bundle", bundle, "c0"}); why != "" {
			t.Errorf("%s: %s", before, why)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != after {
			t.Errorf("%s became %s, %v; want %s", before, got, err, after)
		}
	}
	if why := redirected([]string{"runc", "create", "--bundle", t.TempDir()}); why == "" {
		t.Error("a bundle without configuration is taken")
	}
	if why := redirected([]string{"runc", "create", "--bundle"}); why != "" {
		t.Error(why)
	}
}

// dockerd listens as in its libnetwork/sandbox_externalkey_unix.go, and answers.
func dockerd(t *testing.T, answer string) (root string, heard <-chan string) {
	t.Helper()
	root = t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "libnetwork"), 0o700); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(root, "libnetwork", "short.sock"))
	if err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		message := make([]byte, 1280)
		n, _ := conn.Read(message)
		said <- string(message[:n])
		_, _ = conn.Write([]byte(answer))
	}()
	t.Cleanup(func() { listener.Close(); <-done })
	return root, said
}

const state = `{"ociVersion":"1.0.2","id":"c0","status":"created","pid":4711,"bundle":"/b"}`

// told is tell with a state to read.
func told(t *testing.T, args []string, state string) (why string) {
	t.Helper()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := out.WriteString(state); err != nil {
		t.Fatal(err)
	}
	out.Close()
	return tell(args, in.Fd())
}

func TestDockerdIsToldOfTheNamespace(t *testing.T) {
	root, heard := dockerd(t, "success")
	if why := told(t, []string{"-exec-root=" + root, "c0", "short"}, state); why != "" {
		t.Fatal(why)
	}
	if got := <-heard; got != `{"ContainerID":"c0","Key":"/proc/4711/ns/net"}`+"\n" {
		t.Errorf("dockerd hears %q", got)
	}
}

func TestWhatDockerdRefusesIsSaid(t *testing.T) {
	root, _ := dockerd(t, "no such container")
	if why := told(t, []string{"-exec-root=" + root, "c0", "short"}, state); why != "no such container" {
		t.Error(why)
	}
	if why := told(t, []string{"-exec-root=" + root, "c0", "absent"}, state); why == "" {
		t.Error("a dockerd that is not there was told")
	}
	if why := told(t, []string{"-exec-root=" + root, "c0"}, state); !strings.Contains(why, "a container and a controller") {
		t.Error(why)
	}
	if why := told(t, []string{"-other", "c0", "short"}, state); why == "" {
		t.Error("another flag is taken")
	}
	for _, state := range []string{"", "{}", `{"pid":"x"}`} {
		if why := told(t, []string{"-exec-root=" + root, "c0", "short"}, state); why != "the container's state has no process" {
			t.Errorf("%s: %s", state, why)
		}
	}
	if why := told(t, []string{"-exec-root=" + strings.Repeat("/long", 40), "c0", "short"}, state); why != "dockerd does not listen for networks" {
		t.Error(why)
	}
}
