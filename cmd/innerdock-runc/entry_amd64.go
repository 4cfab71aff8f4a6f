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
	var next name
	why := front(&s, &next)
	if why == "" && next.set() {
		_, _, _ = syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(&next)), uintptr(argv), uintptr(environ))
		why = notStarted
	}
	status := uintptr(0)
	if why != "" {
		fail(why)
		status = 1
	}
	_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, status, 0, 0)
}
