// Command innerdock-runc is what Docker starts as runc inside a sandbox. It
// becomes the image's runc, with the same arguments. Starting programs is most of
// what a `docker run` costs under gVisor, so it spares two kinds of starts.
//
// Of a container that is to get a network of its own it changes one thing before:
// runc is to start dockerd's program once more, which only tells dockerd where the
// new network namespace is (BuildKit in all of Docker's versions, and `docker run`
// until 28). This small program does the telling.
//
// And of the four times that runc is asked for one container, three are so small
// that starting runc is all there is to them: those it does itself (steps.go).
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// setKey is the name by which dockerd's program knows that it is to tell of a
// network namespace.
const setKey = "libnetwork-setkey"

func main() {
	if err := run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "innerdock-runc:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if args[0] == setKey {
		return tell(args[1:], os.Stdin)
	}
	if step(args) {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if i := slices.Index(args, "--bundle"); i >= 0 && i+1 < len(args) {
		if err := redirect(filepath.Join(args[i+1], "config.json"), self); err != nil {
			return err
		}
	}
	runc, err := another("runc", self, os.Getenv("PATH"))
	if err != nil {
		return err
	}
	return &os.PathError{Op: "exec", Path: runc, Err: syscall.Exec(runc, args, os.Environ())}
}

// another returns the first program of a name on a search path that is not this
// one.
func another(name, self, path string) (string, error) {
	own, err := os.Stat(self)
	if err != nil {
		return "", err
	}
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && info.Mode().Perm()&0o111 != 0 && !os.SameFile(info, own) {
			return file, nil
		}
	}
	return "", &exec.Error{Name: name, Err: exec.ErrNotFound}
}

// redirect makes the hook of a bundle's configuration that starts dockerd's
// program start another one. It leaves alone what has none. A quotation mark
// inside of a string has a backslash before it, so no string can look like this
// hook.
func redirect(config, program string) error {
	const before, after = `"path":"`, `","args":["` + setKey + `"`
	content, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	end := bytes.Index(content, []byte(after))
	if end < 0 {
		return nil
	}
	start := bytes.LastIndex(content[:end], []byte(before)) + len(before)
	if !strings.HasPrefix(string(content[start:end]), "/proc/") {
		return nil
	}
	return os.WriteFile(config, slices.Concat(content[:start], []byte(program), content[end:]), 0o600)
}

// tell does what dockerd's program does under the name setKey: args are
// -exec-root=DIR CONTAINER CONTROLLER, and the state that a runtime gives its
// hooks is what is read.
func tell(args []string, state io.Reader) error {
	if len(args) != 3 {
		return fmt.Errorf("%s takes dockerd's directory, a container and a controller, not %q", setKey, args)
	}
	root, ok := strings.CutPrefix(args[0], "-exec-root=")
	if !ok {
		return fmt.Errorf("%s does not know %q", setKey, args[0])
	}
	var container struct{ Pid int }
	if err := json.NewDecoder(state).Decode(&container); err != nil {
		return err
	}
	conn, err := net.Dial("unix", filepath.Join(root, "libnetwork", args[2]+".sock"))
	if err != nil {
		return err
	}
	defer conn.Close()
	message := struct{ ContainerID, Key string }{args[1], fmt.Sprintf("/proc/%d/ns/net", container.Pid)}
	if err := json.NewEncoder(conn).Encode(message); err != nil {
		return err
	}
	answer := make([]byte, 1024)
	n, err := conn.Read(answer)
	if err != nil {
		return err
	}
	if string(answer[:n]) != "success" {
		return errors.New(string(answer[:n]))
	}
	return nil
}
