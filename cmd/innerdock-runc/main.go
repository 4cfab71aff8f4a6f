// Command innerdock-runc stands before two of the programs that Docker starts for
// each container, runc and containerd's shim, and becomes them, with the same
// arguments. To start a program is most of what a `docker run` costs under gVisor,
// so it spares starts.
//
// Of a container that is to get a network of its own it changes one thing before:
// runc is to start dockerd's program once more, which only tells dockerd where the
// new network namespace is (BuildKit in all of Docker's versions, and `docker run`
// until 28). This small program does the telling (hook.go).
//
// Of the four times that runc is asked for one container, three are so small that
// starting runc is all there is to them: those it does itself (steps.go). So it is
// with the last of the shim's three starts (shim.go), and with what runc says of its
// version (version.go).
//
// It would be of no use if its own start were as dear as theirs. Go's runtime takes
// a hundred system calls before main: on amd64 the program begins at entry
// (entry_amd64.s), without it. Nothing here but main may therefore allocate memory, start a
// goroutine, or panic: names and files are in arrays of fixed size, and the kernel
// is called directly (kernel.go). Whatever does not fit is left to the program
// that it stands before.
package main

import (
	"os"
	"strings"
	"syscall"
)

// start is what the program was started with.
type start struct {
	args     []string
	path     string // PATH
	notifies bool   // NOTIFY_SOCKET is set
}

// main is for processors that have no entry of their own.
func main() {
	s := start{args: os.Args, path: os.Getenv("PATH"), notifies: os.Getenv("NOTIFY_SOCKET") != ""}
	var next, kept name // what runc says is not kept here: that takes a fork
	why := front(&s, &next, &kept)
	if why == "" && next.set() {
		_ = syscall.Exec(next.String(), os.Args, os.Environ())
		why = notStarted
	}
	if why != "" {
		fail(why)
		os.Exit(1)
	}
}

const (
	notFound   = "the program that this one stands before is not in PATH"
	notStarted = "the program that this one stands before cannot be started"
)

// front does what is asked, or names the program that is to do it, and the file in
// which what that says is to be kept, if it is. It returns why it can do neither.
func front(s *start, next, kept *name) (why string) {
	if len(s.args) == 0 {
		return notFound
	}
	program := base(s.args[0])
	switch program {
	case setKey:
		return tell(s.args[1:], 0)
	case shim:
		if cleaned(s.args[1:], 1) {
			return ""
		}
	default:
		program = "runc"
		if step(s) {
			return ""
		}
		if why := redirected(s.args); why != "" {
			return why
		}
	}
	if !found(program, s.path, false, next) {
		return notFound
	}
	if asksVersion(s.args) && versionFile(s, kept) && answered(kept, next, 1) {
		next[0] = 0
	}
	return ""
}

// base is the last part of a file's name.
func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// found finds the first program of a name on a search path that is this one, or that is not.
func found(program, path string, own bool, file *name) bool {
	var self name
	var this, info syscall.Stat_t
	if !self.join("/proc/self/exe") || stat(&self, &this) != 0 {
		return false
	}
	for more := true; more; {
		var dir string
		dir, path, more = strings.Cut(path, ":")
		if dir != "" && file.join(dir, "/", program) && stat(file, &info) == 0 &&
			info.Mode&syscall.S_IFMT == syscall.S_IFREG && info.Mode&0o111 != 0 && own == (info.Dev == this.Dev && info.Ino == this.Ino) {
			return true
		}
	}
	return false
}
