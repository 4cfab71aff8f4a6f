package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOnlyTheHookOfTheNetworkIsRedirected(t *testing.T) {
	const hook = `"hooks":{"prestart":[{"path":"/proc/12/exe","args":["libnetwork-setkey","-exec-root=/run/docker","c","s"]}]}`
	for before, after := range map[string]string{
		`{"process":{"args":["true"]},` + hook + `}`: `{"process":{"args":["true"]},` + strings.Replace(hook, "/proc/12/exe", "/new", 1) + `}`,
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
		file := filepath.Join(t.TempDir(), "config.json")
		if err := os.WriteFile(file, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := redirect(file, "/new"); err != nil {
			t.Errorf("%s: %v", before, err)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != after {
			t.Errorf("%s became %s, %v; want %s", before, got, err, after)
		}
	}
	if err := redirect(filepath.Join(t.TempDir(), "none"), "/new"); err == nil {
		t.Error("a bundle without configuration is taken")
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

func TestDockerdIsToldOfTheNamespace(t *testing.T) {
	root, heard := dockerd(t, "success")
	if err := tell([]string{"-exec-root=" + root, "c0", "short"}, strings.NewReader(state)); err != nil {
		t.Fatal(err)
	}
	if got := <-heard; got != `{"ContainerID":"c0","Key":"/proc/4711/ns/net"}`+"\n" {
		t.Errorf("dockerd hears %q", got)
	}
}

func TestWhatDockerdRefusesIsSaid(t *testing.T) {
	root, _ := dockerd(t, "no such container")
	if err := tell([]string{"-exec-root=" + root, "c0", "short"}, strings.NewReader(state)); err == nil || err.Error() != "no such container" {
		t.Errorf("%v", err)
	}
	if err := tell([]string{"-exec-root=" + root, "c0", "absent"}, strings.NewReader(state)); err == nil {
		t.Error("a dockerd that is not there was told")
	}
	if err := tell([]string{"-exec-root=" + root, "c0"}, strings.NewReader(state)); err == nil || !strings.Contains(err.Error(), "a container and a controller") {
		t.Errorf("%v", err)
	}
	if err := tell([]string{"-other", "c0", "short"}, strings.NewReader(state)); err == nil {
		t.Error("another flag is taken")
	}
}

func TestTheNextRuncIsFound(t *testing.T) {
	ours, theirs, neither := t.TempDir(), t.TempDir(), t.TempDir()
	self := filepath.Join(t.TempDir(), "self")
	for file, mode := range map[string]os.FileMode{self: 0o700, filepath.Join(theirs, "runc"): 0o700, filepath.Join(neither, "runc"): 0o600} {
		if err := os.WriteFile(file, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(self, filepath.Join(ours, "runc")); err != nil {
		t.Fatal(err)
	}
	if got, err := another("runc", self, strings.Join([]string{ours, neither, theirs}, ":")); err != nil || got != filepath.Join(theirs, "runc") {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := another("runc", self, ours+":"+neither); err == nil {
		t.Errorf("without one, it is %q", got)
	}
}
