// Package guard ends processes when memory runs out.
//
// gVisor counts the memory of a cgroup and takes its limit, but does nothing
// about it; the guard does what Linux would: it kills the largest process of
// the cgroup, and dockerd hears of it. The memory of the whole sandbox is
// watched from outside, where its limit is; asked from there, the guard kills
// the largest process of all, so that one process ends and not the sandbox.
package guard

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	// fillRate is how fast a program can fill memory, in bytes a second, and
	// more: a cgroup is looked at again well before it can have used up what is
	// left of its limit.
	fillRate     = 4 << 30
	shortestLook = 3 * time.Millisecond
	longestLook  = 250 * time.Millisecond
	// calm is how long a cgroup's use must stay the same until it gets the longest
	// pauses: a look costs the sandbox most of a millisecond. It is more than a
	// container takes from its cgroup to its program.
	calm = 5 * time.Second

	// dying is how long the death of a process may take until the next one is
	// killed, and settling how long the memory of the dead may be counted: gVisor
	// frees it in the background. Meanwhile the living are asked what they have.
	dying    = 3 * time.Second
	settling = 5 * time.Second
	// telling bounds how long containerd may take to hear that memory ran out.
	telling = 2 * time.Second
)

// Config says what a guard works with.
type Config struct {
	Memory     string   // mount point of the memory hierarchy
	Containerd []string // its ttrpc sockets; the first that answers is told
	Log        *slog.Logger
}

// Guard keeps the limits of the memory cgroups. Where none has a limit it
// sleeps.
type Guard struct {
	cfg Config

	mu   sync.Mutex
	stop context.CancelFunc // nil: not started
	wg   sync.WaitGroup
}

// New returns a guard that watches nothing yet.
func New(cfg Config) *Guard { return &Guard{cfg: cfg} }

// Start begins to keep the limits, until Close. The hierarchy must be mounted. A
// guard that has started goes on.
func (g *Guard) Start(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stop != nil {
		return nil
	}
	t, err := openTree(g.cfg.Memory)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	g.stop = cancel
	changed := make(chan struct{}, 1)
	g.wg.Go(func() { t.watch(changed) })
	g.wg.Go(func() {
		defer t.close()
		g.keep(ctx, t, changed)
	})
	return nil
}

// Close ends what Start began.
func (g *Guard) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stop == nil {
		return
	}
	g.stop()
	g.wg.Wait()
	g.stop = nil
}

// group is a cgroup that has a limit.
type group struct {
	path  string
	usage *os.File
	limit int64     // bytes
	look  time.Time // when it is looked at next
	last  int64     // use, in bytes
	since time.Time // when that was found first

	victim process   // killed last; zero: none
	killed time.Time // when
	freed  time.Time // when the use was last seen to become less, or enough
}

// keep looks at the cgroups with limits, each when it is due.
func (g *Guard) keep(ctx context.Context, t *tree, changed <-chan struct{}) {
	groups := t.limited(nil)
	defer func() { closeAll(groups) }()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			groups = t.limited(groups)
		case <-timer.C:
		}
		timer.Stop()
		if next := g.round(ctx, groups); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// round looks at the groups that are due and returns when the next one is;
// zero if there is none.
func (g *Guard) round(ctx context.Context, groups map[string]*group) time.Time {
	var next time.Time
	for _, gr := range groups {
		if now := time.Now(); !now.Before(gr.look) {
			gr.look = now.Add(g.check(ctx, gr))
		}
		if next.IsZero() || gr.look.Before(next) {
			next = gr.look
		}
	}
	return next
}

// check kills a process of a group that is over its limit, and says how long it
// need not be looked at.
func (g *Guard) check(ctx context.Context, gr *group) time.Duration {
	usage, err := readNumber(gr.usage)
	if err != nil {
		return longestLook // it is gone; the tree will say so
	}
	if usage <= gr.limit {
		gr.freed = time.Now()
		return gr.pause(usage)
	}
	pids := processesIn(gr.path)
	if gr.settles(usage, pids) {
		return shortestLook
	}
	p, found := largest(pids, gr.limit)
	if !found {
		return longestLook // what is left are the files of a tmpfs
	}
	g.end(ctx, p)
	gr.victim, gr.killed, gr.freed = p, time.Now(), time.Now()
	g.cfg.Log.Warn("a cgroup ran out of memory and its largest process was killed", "cgroup", gr.path,
		"limit", gr.limit, "usage", usage, "pid", p.pid, "name", p.name, "bytes", p.bytes)
	return shortestLook
}

// settles reports whether what is too much is of the dead, and still to be freed:
// the last kill takes effect, or the processes have no more than the limit.
func (gr *group) settles(usage int64, pids []int) bool {
	dies := gr.victim.size() > 0 && time.Since(gr.killed) < dying
	if dies || usage < gr.last {
		gr.freed = time.Now()
	}
	gr.last, gr.since = usage, time.Now()
	return dies || time.Since(gr.freed) < settling && resident(pids)+files(gr.path) <= gr.limit
}

// pause is how long a group that uses less than its limit need not be looked at.
func (gr *group) pause(usage int64) time.Duration {
	if usage != gr.last || gr.since.IsZero() {
		gr.last, gr.since = usage, time.Now()
	}
	if time.Since(gr.since) > calm {
		return longestLook
	}
	full := time.Duration(float64(gr.limit-usage) / fillRate * float64(time.Second))
	return min(max(full, shortestLook), longestLook)
}

// end kills a process because of memory. dockerd hears of it before it hears of
// the death, and in the meantime the process takes no more.
func (g *Guard) end(ctx context.Context, p process) {
	_ = syscall.Kill(p.pid, syscall.SIGSTOP)
	if id := p.container(); id != "" {
		ctx, cancel := context.WithTimeout(ctx, telling)
		defer cancel()
		if err := g.announce(ctx, id); err != nil {
			g.cfg.Log.Warn("containerd could not be told that a container ran out of memory", "container", id, "error", err)
		}
	}
	_ = syscall.Kill(p.pid, syscall.SIGKILL)
}
