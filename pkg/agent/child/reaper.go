// Package child starts programs and is the one place that waits for them.
//
// PID 1 inherits the orphans of a sandbox and must reap them all, with wait4 on
// any child, which would steal the exit status from anybody else who waits. So
// nobody else does: programs are started here, and their end is told here.
package child

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// Exit tells how a program ended.
type Exit struct {
	Code   int            // 128 + the signal's number after a signal
	Signal syscall.Signal // 0: it exited
	At     time.Time
}

// Reaper starts and reaps. Its zero value is ready once Run runs.
type Reaper struct {
	// Orphans says that every child is ours to reap: true for PID 1.
	Orphans bool

	mu       sync.Mutex // held from fork to registration, so no exit is missed
	children map[int]chan<- Exit
}

// Run reaps until ctx ends. Programs that are started while it does not run
// are reaped when it does.
func (r *Reaper) Run(ctx context.Context) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGCHLD)
	defer signal.Stop(signals)
	for {
		r.collect()
		select {
		case <-signals:
		case <-ctx.Done():
			return
		}
	}
}

// Start runs path in a session, and so a process group, of its own. The
// returned channel receives the Exit, once.
func (r *Reaper) Start(path string, args []string, attr *syscall.ProcAttr) (int, <-chan Exit, error) {
	if attr.Sys == nil {
		attr.Sys = &syscall.SysProcAttr{}
	}
	attr.Sys.Setsid = true
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(path, args, attr)
	if err != nil {
		return 0, nil, err
	}
	if r.children == nil {
		r.children = make(map[int]chan<- Exit)
	}
	exit := make(chan Exit, 1)
	r.children[pid] = exit
	return pid, exit, nil
}

// Signal sends sig to the process group of a program that was started here. It
// reports false when the program has ended: its PID may be another's by now.
func (r *Reaper) Signal(pid int, sig syscall.Signal) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.children[pid]; !ok {
		return false, nil
	}
	return true, syscall.Kill(-pid, sig)
}

// Running returns how many started programs have not been reaped.
func (r *Reaper) Running() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.children)
}

// collect reaps all that have ended. It holds the lock while it does, since a
// PID that is reaped may be given to the next program at once.
func (r *Reaper) collect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Orphans {
		for r.wait(-1) {
		}
		return
	}
	for pid := range r.children {
		r.wait(pid)
	}
}

// wait reaps one ended child (any: -1) and reports whether there was one.
func (r *Reaper) wait(pid int) bool {
	var ws syscall.WaitStatus
	for {
		got, err := syscall.Wait4(pid, &ws, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || got <= 0 {
			return false
		}
		if exit, ok := r.children[got]; ok {
			delete(r.children, got)
			exit <- exitOf(ws)
		}
		return true
	}
}

func exitOf(ws syscall.WaitStatus) Exit {
	if ws.Signaled() {
		return Exit{Code: 128 + int(ws.Signal()), Signal: ws.Signal(), At: time.Now()}
	}
	return Exit{Code: ws.ExitStatus(), At: time.Now()}
}
