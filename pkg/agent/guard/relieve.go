package guard

import (
	"context"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/reply"
	"github.com/innerdock/innerdock/pkg/agent/wire"
)

// Register adds the guard's endpoint to mux.
func (g *Guard) Register(mux *http.ServeMux) {
	mux.Handle("POST "+wire.PathRelieve, reply.Handler(func(w http.ResponseWriter, r *http.Request) error {
		relief, err := g.Relieve(r.Context())
		if err != nil {
			return err
		}
		reply.JSON(w, http.StatusOK, relief)
		return nil
	}))
}

// small is the share of the memory below which one process does not explain why
// there is none left: then many do, and all of a session are killed.
const small = 16

// Relieve kills the process of the sandbox that takes most memory, or all of its
// session, and returns when that is given back or takes too long.
func (g *Guard) Relieve(ctx context.Context) (wire.Relief, error) {
	total := totalMemory()
	p, found := largest(allProcesses(), total)
	if !found {
		return wire.Relief{}, innerdock.Errorf(innerdock.CodeNotFound, "no process is left that could be killed")
	}
	relief := wire.Relief{PID: p.pid, Name: p.name, Bytes: p.bytes, Container: p.container()}
	if p.bytes < total/small {
		relief.More = killSession(ctx, p)
	}
	g.end(ctx, p)
	ctx, cancel := context.WithTimeout(ctx, dying)
	defer cancel()
	tick := time.NewTicker(shortestLook)
	defer tick.Stop()
	for p.size() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return relief, nil
		}
	}
	return relief, nil
}

// killSession kills the other processes of p's session, and those that they
// start meanwhile, and returns how many. It leaves alone who leads Docker.
func killSession(ctx context.Context, p process) int {
	session := sessionOf(p.pid)
	if _, docker := daemons[comm(session)]; docker || session <= 1 {
		return 0
	}
	killed := map[int]bool{}
	for again := true; again && ctx.Err() == nil; {
		again = false
		for _, pid := range allProcesses() {
			if pid != p.pid && !killed[pid] && sessionOf(pid) == session {
				killed[pid], again = true, true
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
	return len(killed)
}

// sessionOf returns the session of a process, 0 when it is gone.
func sessionOf(pid int) int {
	text, _ := os.ReadFile(procFile(pid, "stat"))
	_, rest, _ := strings.Cut(string(text), ") ") // after a name, which cannot be longer than 15 bytes
	fields := strings.Fields(rest)
	if len(fields) < 4 {
		return 0
	}
	session, _ := strconv.Atoi(fields[3])
	return session
}

// totalMemory is what the sandbox has, in bytes.
func totalMemory() int64 {
	text, _ := os.ReadFile("/proc/meminfo")
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "MemTotal:" {
			kib, _ := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10
		}
	}
	return 0
}
