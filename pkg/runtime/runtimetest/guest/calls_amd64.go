package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"unsafe"
)

func init() { verbs["calls"] = calls }

// compared makes a system call at an address of its own. Of an error it returns
// the number and failed.
func compared(number, a, b, c uintptr) (result uintptr)

const failed = 0x10000

// compiled returns the code of compared.
func compiled() (address *[64]byte)

// calls makes system calls at one address, with threads that wait in one while
// gVisor patches it, others that call there at that time, and signals
// that interrupt them all, and tells how the instruction began before and after.
func calls([]string) (any, error) {
	// Go does not know of these calls: a thread that waits keeps its P, and cannot
	// be stopped for a collection.
	runtime.GOMAXPROCS(20)
	debug.SetGCPercent(-1)
	code := compiled()
	site := 0
	for code[site] != 0x0f || code[site+1] != 0x05 {
		site++
	}
	before := code[site]

	var errs [12]error
	var all sync.WaitGroup
	run := func(i int, f func() error) {
		all.Go(func() {
			runtime.LockOSThread()
			errs[i] = f()
		})
	}
	// A reader gets what is written into its pipe, and then the end.
	reader := func(in *[2]int) func() error {
		return func() error {
			var b [8]byte
			for _, want := range []uintptr{3, 0} {
				if n := compared(syscall.SYS_READ, uintptr(in[0]), uintptr(unsafe.Pointer(&b)), uintptr(len(b))); n != want {
					return fmt.Errorf("read: %#x, want %d", n, want)
				}
			}
			return nil
		}
	}
	caller := func() error {
		parent := uintptr(os.Getppid())
		for range 2000 {
			if got := compared(syscall.SYS_GETPPID, 0, 0, 0); got != parent {
				return fmt.Errorf("getppid: %#x, want %d", got, parent)
			}
			if got := compared(syscall.SYS_CLOSE, 12345, 0, 0); got != failed|uintptr(syscall.EBADF) {
				return fmt.Errorf("close: %#x", got)
			}
		}
		return nil
	}
	var pipes [8][2]int
	for i := range pipes {
		if err := syscall.Pipe(pipes[i][:]); err != nil {
			return nil, err
		}
	}
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, syscall.SIGUSR1)
	for i := range 4 {
		run(i, reader(&pipes[i]))
	}
	for i := range 4 {
		run(4+i, caller)
	}
	for range 200 {
		if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
			return nil, err
		}
		<-heard
	}
	for i := range 4 { // these come to wait when it has been patched
		run(8+i, reader(&pipes[4+i]))
	}
	for range 200 {
		if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
			return nil, err
		}
		<-heard
	}
	for _, pipe := range pipes {
		if _, err := syscall.Write(pipe[1], []byte("abc")); err != nil {
			return nil, err
		}
		if err := syscall.Close(pipe[1]); err != nil {
			return nil, err
		}
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return map[string]any{"before": before, "after": code[site]}, nil
}
