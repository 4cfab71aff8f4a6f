package main

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// startIn is how long a container's first process may take to wait for its start.
const startIn = time.Second

// step takes one of runc's small steps: to let a created container start, to
// remove one that has ended, and to find that there is none. It reports whether it
// did; where anything is unusual it has done nothing that runc would not do
// as well, and runc is to see to it.
func step(args []string) bool {
	root, verb, rest := command(args)
	if root == "" || len(rest) == 0 {
		return false
	}
	id := rest[len(rest)-1]
	if id == "" || id != filepath.Base(id) || id == "." || id == ".." {
		return false
	}
	dir := filepath.Join(root, id)
	switch {
	case verb == "start" && len(rest) == 1 && os.Getenv("NOTIFY_SOCKET") == "":
		return start(dir)
	case verb == "delete" && len(rest) == 1:
		return remove(dir)
	case verb == "delete" && len(rest) == 2 && rest[0] == "--force":
		return removed(dir)
	}
	return false
}

// command is runc's directory, the verb and its arguments, as Docker's daemons put
// them; of another form it is nothing.
func command(args []string) (root, verb string, rest []string) {
	for i := 1; i < len(args); i++ {
		switch arg := args[i]; arg {
		case "--root", "--log", "--log-format":
			i++
			if arg == "--root" && i < len(args) {
				root = args[i]
			}
		case "--debug", "--systemd-cgroup":
		default:
			return root, arg, args[i+1:]
		}
	}
	return "", "", nil
}

// start lets the first process of a created container go on: it waits for a reader
// of its fifo.
func start(dir string) bool {
	fifo := filepath.Join(dir, "exec.fifo")
	if _, err := os.Lstat(fifo); err != nil {
		return false
	}
	opened := make(chan *os.File, 1)
	go func() {
		file, _ := os.OpenFile(fifo, os.O_RDONLY, 0) // nil if it failed
		opened <- file
	}()
	select {
	case file := <-opened:
		if file == nil {
			return false
		}
		defer file.Close()
		said, err := io.ReadAll(file)
		return err == nil && len(said) > 0 && os.Remove(fifo) == nil
	case <-time.After(startIn):
		return false // it is dead
	}
}

// record is what runc keeps of a container, in as much as its end is concerned.
type record struct {
	InitProcessPid   int               `json:"init_process_pid"`
	InitProcessStart uint64            `json:"init_process_start"`
	CgroupPaths      map[string]string `json:"cgroup_paths"`
	IntelRdtPath     string            `json:"intel_rdt_path"`
	Config           struct {
		Hooks      map[string][]json.RawMessage
		Namespaces []struct{ Type, Path string } `json:"namespaces"`
	} `json:"config"`
}

// remove removes a container that has ended, whose processes have ended with its
// first one, and that wants no program to be started.
func remove(dir string) bool {
	content, err := os.ReadFile(filepath.Join(dir, "state.json"))
	if err != nil {
		return false
	}
	var s record
	if err := json.Unmarshal(content, &s); err != nil {
		return false
	}
	alone := slices.Contains(s.Config.Namespaces, struct{ Type, Path string }{"NEWPID", ""})
	if !alone || len(s.Config.Hooks["poststop"]) > 0 || s.IntelRdtPath != "" || len(s.CgroupPaths) == 0 || s.alive() {
		return false
	}
	for _, path := range s.CgroupPaths {
		if err := syscall.Rmdir(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	return os.RemoveAll(dir) == nil
}

// alive reports whether the first process may live.
func (s *record) alive() bool {
	content, err := os.ReadFile("/proc/" + strconv.Itoa(s.InitProcessPid) + "/stat")
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ESRCH)
	}
	// What follows the name, which may have anything in it, begins with the state;
	// the time of its start is nineteen fields after that.
	fields := strings.Fields(string(content[strings.LastIndex(string(content), ")")+1:]))
	if len(fields) < 20 {
		return true
	}
	return fields[0] != "Z" && fields[0] != "X" && fields[19] == strconv.FormatUint(s.InitProcessStart, 10)
}

// removed reports whether a container that is to be removed by force is gone, and
// leaves nothing of one that was never finished.
func removed(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, "state.json"))
	return errors.Is(err, fs.ErrNotExist) && os.RemoveAll(dir) == nil
}
