// Command guest is PID 1 of the sandboxes that tests start. It does what its
// first argument says, tells the result as one line of JSON on the control
// socket, and then waits for SIGTERM, at which it exits with code 7 or, for the
// verb "exit", with the code that is its argument.
package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const socket = "/run/innerdock/agent.sock"

var verbs = map[string]func([]string) (any, error){
	"exit": exit, "sleep": sleep, "describe": describe, "eat": eat, "spin": spin, "fill": fill, "write": write,
	"become": become, "whoami": whoami, "dial": dial,
	"remember": remember, "share": share,
}

func main() {
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM)
	verb, ok := verbs[os.Args[1]]
	if !ok {
		fail(fmt.Errorf("no verb %q", os.Args[1]))
	}
	result, err := verb(os.Args[2:])
	if err != nil {
		fail(err)
	}
	if result != nil {
		if err := tell(result); err != nil {
			fail(err)
		}
	}
	<-terminate
	os.Exit(code)
}

func fail(err error) {
	_ = tell(map[string]string{"error": err.Error()}) // the exit code says it too
	os.Exit(1)
}

func tell(result any) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	return json.NewEncoder(conn).Encode(result)
}

// code is what the guest exits with at SIGTERM.
var code = 7

func exit(args []string) (result any, err error) {
	code, err = strconv.Atoi(args[0])
	return nil, err
}

func sleep([]string) (any, error) { return nil, nil }

// describe tells what the sandbox looks like from inside.
func describe([]string) (any, error) {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	d := map[string]any{
		"pid": os.Getpid(), "hostname": host, "env": os.Environ(), "hard": files.Max,
		"mounts": lines("/proc/mounts"), "status": lines("/proc/self/status"),
		"raw":    socketError(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_ICMP),
		"packet": socketError(syscall.AF_PACKET, syscall.SOCK_RAW, 0x300),
	}
	readOnly := map[string]string{}
	for _, dir := range []string{"/run/innerdock", "/.innerdock", "/", "/tmp", "/dev/shm", "/var/lib/docker"} {
		readOnly[dir] = text(os.WriteFile(dir+"/probe", nil, 0o600))
	}
	d["write"] = readOnly
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, i := range interfaces {
		names = append(names, i.Name)
	}
	d["interfaces"] = names
	d["stdio"] = []string{link("0"), link("1"), link("2")}
	return d, nil
}

func link(fd string) string {
	target, err := os.Readlink("/proc/self/fd/" + fd)
	if err != nil {
		return err.Error()
	}
	return target
}

func socketError(domain, kind, protocol int) string {
	fd, err := syscall.Socket(domain, kind, protocol)
	if err == nil {
		syscall.Close(fd)
	}
	return text(err)
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func lines(path string) []string {
	content, err := os.ReadFile(path)
	if err != nil {
		return []string{err.Error()}
	}
	return strings.Split(strings.TrimSpace(string(content)), "\n")
}

// eat takes and touches memory, a number of bytes.
func eat(args []string) (any, error) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return nil, err
	}
	var held [][]byte
	for taken := 0; taken < n; taken += 1 << 20 {
		chunk := make([]byte, 1<<20)
		for i := 0; i < len(chunk); i += 4096 {
			chunk[i] = byte(i + 1)
		}
		held = append(held, chunk)
	}
	return map[string]int{"eaten": len(held) << 20}, nil
}

// spin keeps four threads busy for a number of seconds.
func spin(args []string) (any, error) {
	seconds, err := strconv.ParseFloat(args[0], 64)
	if err != nil {
		return nil, err
	}
	end := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	done := make(chan int)
	for range 4 {
		go func() {
			n := 0
			for time.Now().Before(end) {
				n++
			}
			done <- n
		}()
	}
	total := 0
	for range 4 {
		total += <-done
	}
	return map[string]int{"turns": total}, nil
}

// fill writes a file until the number of bytes or an error, and tells both.
func fill(args []string) (any, error) {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return nil, err
	}
	f, err := os.Create(args[0])
	if err != nil {
		return nil, err
	}
	defer f.Close()
	chunk := []byte(strings.Repeat("innerdock", 1<<14))
	written := 0
	for written < n && err == nil {
		var m int
		m, err = f.Write(chunk)
		written += m
	}
	return map[string]any{"written": written, "full": errors.Is(err, syscall.ENOSPC)}, nil
}

// share fills one file after the other to a number of bytes, tells what each got,
// removes them, and does so again and again.
func share(args []string) (any, error) {
	for {
		said := map[string]any{}
		for _, path := range args[1:] {
			filled, err := fill([]string{path, args[0]})
			if err != nil {
				return nil, err
			}
			said[path] = filled
		}
		_ = tell(said) // who restores it may not listen yet
		for _, path := range args[1:] {
			if err := os.Remove(path); err != nil {
				return nil, err
			}
		}
	}
}

// write makes files: pairs of a path and a content.
func write(args []string) (any, error) {
	for i := 0; i+1 < len(args); i += 2 {
		if err := os.WriteFile(args[i], []byte(args[i+1]), 0o644); err != nil {
			return nil, err
		}
	}
	if err := os.Remove("/etc/old"); err != nil {
		return nil, err
	}
	return map[string]bool{"written": true}, nil
}

// become runs a program as user 1000, and tells what it printed.
func become(args []string) (any, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	out, err := cmd.Output()
	return map[string]string{"output": strings.TrimSpace(string(out))}, err
}

// whoami prints the effective user, and ends.
func whoami([]string) (any, error) {
	fmt.Println(os.Geteuid())
	os.Exit(0)
	return nil, nil
}

// dial tells whether each Unix socket can be connected to.
func dial(args []string) (any, error) {
	result := map[string]string{}
	for _, path := range args {
		conn, err := net.Dial("unix", path)
		if err == nil {
			conn.Close()
		}
		result[path] = text(err)
	}
	return result, nil
}

// remember puts a number into memory and into files, and tells them again and
// again, together with what a restore must change. The files are the arguments.
func remember(paths []string) (any, error) {
	number := strconv.Itoa(os.Getpid()) + time.Now().String()
	for _, path := range paths {
		if err := os.WriteFile(path, []byte(number), 0o600); err != nil {
			return nil, err
		}
	}
	for {
		host, err := os.Hostname()
		if err != nil {
			return nil, err
		}
		said := map[string]any{"hostname": host, "memory": number, "random": rand.Text()}
		files := map[string]string{}
		for _, path := range paths {
			content, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			files[path] = string(content)
		}
		said["files"] = files
		_ = tell(said) // who restores it may not listen yet
		time.Sleep(20 * time.Millisecond)
	}
}
