package main

import (
	"strings"
	"syscall"
	"unsafe"
)

// entry is made the program's first instruction by the linker's flag -E.
func entry()

var (
	g       [128]uintptr // in the place of the runtime's
	storage [1]uintptr   // the thread's, which points to g
	args    [64]string
)

// entry_amd64.s uses them.
var _, _, _, _ = entry, begin, &g, &storage

// begin is main without Go's runtime. The kernel has put on the stack the number
// of arguments, the pointers to them, a null, those to the environment, and a null.
func begin(stack *uintptr) {
	count := int(*stack)
	argv := unsafe.Add(unsafe.Pointer(stack), 8)
	environ := unsafe.Add(argv, 8*(count+1))
	var s start
	if count <= len(args) { // else they are for runc alone
		for i := range count {
			args[i] = text(*(**byte)(unsafe.Add(argv, 8*i)))
		}
		s.args = args[:count]
	} else {
		args[0] = "runc"
		s.args = args[:1]
	}
	for at := environ; ; at = unsafe.Add(at, 8) {
		entry := *(**byte)(at)
		if entry == nil {
			break
		}
		if value, ok := strings.CutPrefix(text(entry), "PATH="); ok {
			s.path = value
		} else if strings.HasPrefix(text(entry), "NOTIFY_SOCKET=") {
			s.notifies = true
		}
	}
	var next, kept name
	why := front(&s, &next, &kept)
	if why == "" && next.set() {
		if kept.set() && !becomes(&kept, &next) {
			exit(0)
		}
		_, _, _ = syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(&next)), uintptr(argv), uintptr(environ))
		why = notStarted
	}
	if why != "" {
		fail(why)
		exit(1)
	}
	exit(0)
}

func exit(status uintptr) { _, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, status, 0, 0) }

// becomes forks to keep what runc says of its version. It returns in the process that
// is to become runc, which is this one where it cannot; where it returns false, all is done.
func becomes(kept, runc *name) bool {
	var ends [2]int32
	if _, _, err := syscall.RawSyscall(syscall.SYS_PIPE2, uintptr(unsafe.Pointer(&ends)), syscall.O_CLOEXEC, 0); err != 0 {
		return true
	}
	pid, _, err := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if err != 0 {
		return true
	}
	if pid == 0 {
		_, _, _ = syscall.RawSyscall(syscall.SYS_DUP3, uintptr(ends[1]), 1, 0)
		return true
	}
	closed(uintptr(ends[1]))
	version, err := read(uintptr(ends[0]), file[:])
	var status uint32
	_, _, gone := syscall.RawSyscall6(syscall.SYS_WAIT4, pid, uintptr(unsafe.Pointer(&status)), 0, 0, 0, 0)
	write(1, version)
	if err != 0 || gone != 0 || status != 0 {
		exit(uintptr(max(1, status>>8&0xff)))
	}
	keep(kept, runc, version)
	return false
}
