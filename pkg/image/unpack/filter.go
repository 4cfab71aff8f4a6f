package unpack

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// calls are the system calls of unpacking: to read, to write, and what Go's
// runtime needs for memory and threads.
var calls = append([]uintptr{
	unix.SYS_READ, unix.SYS_PREAD64, unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_LSEEK, unix.SYS_FSTAT, unix.SYS_CLOSE,
	unix.SYS_FALLOCATE, unix.SYS_FTRUNCATE, unix.SYS_RECVMSG, unix.SYS_SENDMSG, unix.SYS_FCNTL,
	unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MPROTECT, unix.SYS_MADVISE, unix.SYS_MINCORE, unix.SYS_BRK,
	unix.SYS_FUTEX, unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_GETTIMEOFDAY,
	unix.SYS_GETTID, unix.SYS_GETPID, unix.SYS_TGKILL, unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_RESTART_SYSCALL,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK, unix.SYS_SETITIMER,
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2,
	unix.SYS_GETRANDOM, unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ,
}, archCalls...)

// threadFlag is what clone must be asked for: a thread, never a process.
const threadFlag = unix.CLONE_THREAD

// The fields of what a filter sees, as offsets.
const (
	fieldNumber = 0
	fieldArch   = 4
	fieldArg0   = 16
)

// filterCalls refuses all other system calls, to all threads, for good.
func filterCalls() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	prog := filter()
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return fmt.Errorf("filtering system calls: %w", errno)
	}
	return nil
}

func filter() []unix.SockFilter {
	load := func(field uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: field}
	}
	give := func(value uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: value}
	}
	// equal skips the next instruction when the value is another one.
	equal := func(value uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: 1}
	}
	const refuse = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	prog := []unix.SockFilter{
		load(fieldArch), {Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: auditArch, Jt: 1}, give(unix.SECCOMP_RET_KILL_PROCESS),
		load(fieldNumber),
		equal(unix.SYS_CLONE3), give(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)), // its flags are out of sight: clone is used then
	}
	for _, c := range calls {
		prog = append(prog, equal(uint32(c)), give(unix.SECCOMP_RET_ALLOW))
	}
	return append(prog,
		equal(unix.SYS_PRCTL), give(refuse), // such as names for memory
		unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_CLONE, Jt: 1}, give(refuse),
		load(fieldArg0),
		unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: threadFlag, Jf: 1}, give(unix.SECCOMP_RET_ALLOW),
		give(refuse),
	)
}
