package worker

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/innerdock/innerdock/pkg/agent/wire"
	"github.com/innerdock/innerdock/pkg/runtime"
)

const (
	// memoryRate is how fast a sandbox can fill memory, in bytes a second, and
	// more: it is looked at again long before it can have used up what it has.
	memoryRate = 4 << 30
	// Between two looks at a sandbox's memory.
	shortestLook = 5 * time.Millisecond
	longestLook  = time.Second
	// reliefTime is how long it takes until a process is dead: one is killed when
	// memory, filled on at the same pace, would last no longer.
	reliefTime = 60 * time.Millisecond
	// reliefTimeout is how long an agent may take, and reliefPause how long the
	// host needs to see that memory is free.
	reliefTimeout = 2 * time.Second
	reliefPause   = 50 * time.Millisecond
	// reliefs is how many processes may be killed in a row: when that gives no
	// memory back, what fills it belongs to no process.
	reliefs = 20
)

// guardMemory watches what is left of a sandbox's memory, and asks its agent to
// kill the largest process before there is none. It is a kindness: without it,
// or with an agent that does not, the host's kernel ends the whole sandbox.
func (w *Worker) guardMemory(s *sandbox) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	vain := 0
	forecast := forecast{reserve: min(max(s.memory/32, 8<<20), 32<<20)}
	for {
		select {
		case <-timer.C:
		case <-s.ctx.Done():
			return
		}
		if s.pauses.standing() != moving { // it takes no more, and could not be relieved
			timer.Reset(longestLook)
			continue
		}
		left, ok := runtime.MemoryLeft(s.id, s.memory)
		if !ok {
			return // it has ended
		}
		pause, enough := forecast.next(left, time.Now())
		if enough {
			vain = 0
		} else if vain++; vain > reliefs {
			w.fail(s, "it ran out of memory, and killing its processes gave none back: shared memory or files in a tmpfs fill it; create it with more memory=")
			return
		} else {
			s.relieve()
			forecast.left = 0 // what is freed says nothing about the pace
		}
		timer.Reset(pause)
	}
}

// forecast tells from how memory shrinks when it will have run out.
type forecast struct {
	reserve int64 // that is never to be used
	left    int64 // at the last look; 0: none
	at      time.Time
}

// next takes what is left now. It returns how long to wait until the next look,
// and false if there may be nothing left by then.
func (f *forecast) next(left int64, now time.Time) (pause time.Duration, enough bool) {
	pace := 0.0 // bytes a second
	if passed := now.Sub(f.at).Seconds(); f.left > left && passed > 0 {
		pace = float64(f.left-left) / passed
	}
	f.left, f.at = left, now
	free := float64(left - f.reserve)
	if free <= pace*reliefTime.Seconds() {
		return reliefPause, false
	}
	pause = time.Duration(free / memoryRate * float64(time.Second))
	return min(max(pause, shortestLook), longestLook), true
}

// relieve has the agent kill the largest process, and writes that down.
func (s *sandbox) relieve() {
	ctx, cancel := context.WithTimeout(s.ctx, reliefTimeout)
	defer cancel()
	relief, err := s.agent.relieve(ctx)
	if s.ctx.Err() != nil {
		return
	}
	if err != nil {
		s.log.Warn("the sandbox is running out of memory, and no process could be killed for it", "memory_mib", s.memory>>20, "error", err)
		return
	}
	s.log.Warn("the sandbox ran out of memory; its largest process was killed (exit code 137)", "memory_mib", s.memory>>20,
		"pid", relief.PID, "name", relief.Name, "process_mib", relief.Bytes>>20, "container", relief.Container, "others", relief.More)
}

// relieve asks the agent to kill the process that takes most memory.
func (a agentClient) relieve(ctx context.Context) (wire.Relief, error) {
	var relief wire.Relief
	resp, err := a.post(ctx, wire.PathRelieve, struct{}{}, nil)
	if err != nil {
		return relief, err
	}
	defer func() { _ = resp.Body.Close() }()
	err = json.NewDecoder(io.LimitReader(resp.Body, wire.MaxLine)).Decode(&relief)
	return relief, err
}
