package main

import (
	"strings"
	"syscall"
	"unsafe"
)

// startIn is how long a container's first process may take to wait for its start, in seconds.
const startIn = 1

// runcRoot is where runc keeps its containers unless it is told otherwise, as it
// is by Docker, but not by BuildKit.
const runcRoot = "/run/runc"

// step takes one of runc's small steps: to let a created container start, to
// remove one that has ended, and to find that there is none. It reports whether it
// did; where anything is unusual it has done nothing that runc would not do
// as well, and runc is to see to it.
func step(s *start) bool {
	root, verb, rest := command(s.args)
	if len(rest) == 0 {
		return false
	}
	var dir name
	id := rest[len(rest)-1]
	if id == "" || id == "." || id == ".." || strings.Contains(id, "/") || !dir.join(root, "/", id) {
		return false
	}
	switch {
	case verb == "start" && len(rest) == 1 && !s.notifies:
		return begun(dir.String())
	case verb == "delete" && len(rest) == 1:
		return ended(dir.String())
	case verb == "delete" && len(rest) == 2 && rest[0] == "--force":
		var state name
		var info syscall.Stat_t
		return state.join(dir.String(), "/state.json") && stat(&state, &info) == syscall.ENOENT && emptied(dir.String())
	}
	return false
}

// command is runc's directory, the verb and its arguments, as Docker's daemons put
// them; of another form it is nothing.
func command(args []string) (root, verb string, rest []string) {
	root = runcRoot
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

// begun lets the first process of a created container go on: it waits for a reader
// of its fifo, and tells that it goes on by a byte. One that is dead does not.
func begun(dir string) bool {
	var fifo name
	if !fifo.join(dir, "/exec.fifo") {
		return false
	}
	fd, err := open(&fifo, syscall.O_RDONLY|syscall.O_NONBLOCK)
	if err != 0 {
		return false
	}
	wait := struct {
		fd              int32
		events, revents int16
	}{fd: int32(fd), events: 1} // POLLIN
	patience := syscall.Timespec{Sec: startIn}
	var said byte
	ready := uintptr(0)
	for err = syscall.EINTR; err == syscall.EINTR; { // the kernel counts patience down
		ready, _, err = syscall.RawSyscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&wait)), 1, uintptr(unsafe.Pointer(&patience)), 0, 0, 0)
	}
	if err == 0 && ready == 1 {
		ready, _, err = syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&said)), 1)
	}
	closed(fd)
	return err == 0 && ready == 1 && removed(&fifo, 0) == 0
}

// ended removes a container that has ended, whose processes have ended with its
// first one, and that wants no program to be started. In what runc keeps of it,
// which Go has encoded, no string can look like a key: its quotation marks have
// backslashes before them.
func ended(dir string) bool {
	var state name
	if !state.join(dir, "/state.json") {
		return false
	}
	content, err := readFile(&state, file[:])
	if err != 0 {
		return false
	}
	_, number, _ := strings.Cut(content, `"init_process_pid":`)
	pid, _ := digits(number)
	_, number, _ = strings.Cut(content, `"init_process_start":`)
	began, _ := digits(number)
	alone := strings.Contains(content, `{"type":"NEWPID","path":""}`)
	if pid == "" || began == "" || !alone || !unused(content, `"poststop":`, "null", "[]") || !unused(content, `"intel_rdt_path":`, `""`, `""`) || alive(pid, began) {
		return false
	}
	return groupsRemoved(content) && emptied(dir)
}

// unused reports whether a key has, wherever it is, one of two values.
func unused(content, key, nothing, empty string) bool {
	for {
		_, after, found := strings.Cut(content, key)
		if !found {
			return true
		}
		if !strings.HasPrefix(after, nothing) && !strings.HasPrefix(after, empty) {
			return false
		}
		content = after
	}
}

// groupsRemoved removes the cgroups of a container, of which there is one at the least.
func groupsRemoved(content string) bool {
	const key = `"cgroup_paths":{`
	at := strings.LastIndex(content, key)
	if at < 0 {
		return false
	}
	groups, _, found := strings.Cut(content[at+len(key):], "}")
	if !found || groups == "" || strings.Contains(groups, `\`) {
		return false
	}
	for more := true; more; {
		var group string
		var dir name
		group, groups, more = strings.Cut(groups, ",")
		_, path, found := strings.Cut(group, `":"`)
		path, quoted := strings.CutSuffix(path, `"`)
		if !found || !quoted || !dir.join(path) {
			return false
		}
		if err := removed(&dir, removeDir); err != 0 && err != syscall.ENOENT {
			return false
		}
	}
	return true
}

// alive reports whether the process that began then, in clock ticks, may live.
func alive(pid, began string) bool {
	var stat name
	var buffer [1024]byte
	if !stat.join("/proc/", pid, "/stat") {
		return true
	}
	content, err := readFile(&stat, buffer[:])
	if err != 0 {
		return err != syscall.ENOENT && err != syscall.ESRCH
	}
	// What follows the name, which may have anything in it, begins with the state;
	// the time of its start is nineteen fields after that.
	at := strings.LastIndex(content, ") ")
	if at < 0 {
		return true
	}
	fields := content[at+2:]
	if strings.HasPrefix(fields, "Z") || strings.HasPrefix(fields, "X") {
		return false
	}
	for range 19 {
		_, fields, _ = strings.Cut(fields, " ")
	}
	ticks, _, _ := strings.Cut(fields, " ")
	return ticks == "" || ticks == began
}

// emptied removes the directory that runc keeps of a container, if there is one.
// state.json, by which runc knows that there is a container, is the last of its files.
func emptied(dir string) bool {
	const entry = 19 // of struct linux_dirent64, before its name
	var path name
	var entries [4096]byte
	if !path.join(dir) {
		return false
	}
	fd, err := open(&path, syscall.O_RDONLY|syscall.O_DIRECTORY)
	if err == syscall.ENOENT {
		return true
	}
	if err != 0 {
		return false
	}
	n, _, err := syscall.RawSyscall(syscall.SYS_GETDENTS64, fd, uintptr(unsafe.Pointer(&entries[0])), uintptr(len(entries)))
	closed(fd)
	if err != 0 || n > uintptr(len(entries)/2) { // there may be more
		return false
	}
	for at := 0; at+entry < int(n); {
		file := text(&entries[at+entry])
		at += int(entries[at+16]) | int(entries[at+17])<<8
		if file == "." || file == ".." || file == "state.json" {
			continue
		}
		if !path.join(dir, "/", file) || removed(&path, 0) != 0 {
			return false
		}
	}
	if !path.join(dir, "/state.json") {
		return false
	}
	if err := removed(&path, 0); err != 0 && err != syscall.ENOENT {
		return false
	}
	return path.join(dir) && removed(&path, removeDir) == 0
}
