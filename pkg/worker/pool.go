package worker

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/runtime"
	"github.com/innerdock/innerdock/pkg/store"
	"github.com/innerdock/innerdock/pkg/worker/broadcast"
)

// poolTenant owns the sandboxes that wait in pools: nobody.
const poolTenant = "-pool"

const (
	// poolPace is how often the machine is looked at, for the sake of the pools.
	poolPace = time.Second
	// poolRetry is how long a pool is left alone when a sandbox could not be made.
	poolRetry = 30 * time.Second
	// Of the machine's memory, a pool takes none below the first part that is free,
	// and gives some back below the second.
	poolGrows, poolShrinks = 0.25, 0.10
)

// pools are the sandboxes that wait for who wants them.
type pools struct {
	changed broadcast.Signal // a pool has too few or too many

	mu   sync.Mutex
	list []*pool // oldest first
}

type pool struct {
	innerdock.Pool
	ready []*sandbox // oldest first
	later time.Time  // before which none is made, after a failure
}

// fits reports whether a sandbox of the pool can become what is asked for.
func (p *pool) fits(rec *store.Record) bool {
	if rec.Image != p.Image || rec.Memory != p.Memory || rec.Disk != p.Disk || rec.Spec.Docker.Enabled != p.Docker {
		return false
	}
	if p.Docker {
		return rec.Docker.Profile == p.Profile
	}
	return rec.Name == "" // without Docker, the agent may not change the hostname
}

// planPool checks what is asked for, but for the image.
func (w *Worker) planPool(spec innerdock.PoolSpec) (innerdock.Pool, error) {
	if spec.Size < 1 || spec.Size > min(innerdock.MaxPoolSize, w.Network.Capacity()) {
		return innerdock.Pool{}, innerdock.Errorf(innerdock.CodeInvalid, "size: %d is not between 1 and the %d sandboxes that this server can have",
			spec.Size, min(innerdock.MaxPoolSize, w.Network.Capacity()))
	}
	rec := &store.Record{}
	err := planResources(rec, innerdock.SandboxSpec{Memory: spec.Memory, Disk: spec.Disk})
	if err == nil {
		err = planDocker(rec, spec.Docker)
	}
	return innerdock.Pool{ID: newID(w.Prefix), Size: spec.Size, Memory: rec.Memory, Disk: rec.Disk,
		Docker: spec.Docker.Enabled, Profile: rec.Docker.Profile, CreatedAt: time.Now().UTC()}, err
}

// CreatePool has so many sandboxes be ready from now on.
func (w *Worker) CreatePool(ctx context.Context, spec innerdock.PoolSpec) (innerdock.Pool, error) {
	made, err := w.planPool(spec)
	if err != nil {
		return innerdock.Pool{}, err
	}
	image, err := w.images.Get(ctx, spec.Image)
	if err != nil {
		return innerdock.Pool{}, err
	}
	made.Image = image.ID
	if err := w.Store.InsertPool(ctx, made); err != nil {
		return innerdock.Pool{}, err
	}
	w.pools.mu.Lock()
	w.pools.list = append(w.pools.list, &pool{Pool: made})
	w.pools.mu.Unlock()
	w.pools.changed.Fire()
	return made, nil
}

// Pools lists the pools, oldest first.
func (w *Worker) Pools() []innerdock.Pool {
	w.pools.mu.Lock()
	defer w.pools.mu.Unlock()
	list := []innerdock.Pool{}
	for _, p := range w.pools.list {
		shown := p.Pool
		shown.Ready = len(p.ready)
		list = append(list, shown)
	}
	return list
}

// DeletePool forgets a pool and ends what waits in it.
func (w *Worker) DeletePool(ctx context.Context, id string) error {
	if w.pools.isDeclared(id) {
		return innerdock.Errorf(innerdock.CodeConflict, "pool %s is one of the server's --pool-of; start the server without that", id)
	}
	if err := w.Store.DeletePool(ctx, id); err != nil {
		return err
	}
	w.pools.mu.Lock()
	var waiting []*sandbox
	w.pools.list = slices.DeleteFunc(w.pools.list, func(p *pool) bool {
		if p.ID != id {
			return false
		}
		waiting = p.ready
		return true
	})
	w.pools.mu.Unlock()
	return w.endAll(waiting)
}

// endAll ends sandboxes that nobody has, all at a time.
func (w *Worker) endAll(sandboxes []*sandbox) error {
	failures := make([]error, len(sandboxes))
	var over sync.WaitGroup
	for i, s := range sandboxes {
		over.Go(func() { failures[i] = w.end(s, ending{state: innerdock.StateTerminated}) })
	}
	over.Wait()
	return errors.Join(failures...)
}

// keepPools fills the pools that the store knows, and those that are declared, until
// ctx is done.
func (w *Worker) keepPools(ctx context.Context) {
	stored, err := w.Store.Pools(ctx)
	if err != nil {
		w.Logger.Error("the pools could not be read", "error", err)
	}
	w.pools.mu.Lock()
	for _, p := range stored {
		w.pools.list = append(w.pools.list, &pool{Pool: p})
	}
	w.pools.list = append(w.pools.list, w.declared...)
	w.pools.mu.Unlock()
	tick := time.NewTicker(poolPace)
	defer tick.Stop()
	for {
		changed := w.pools.changed.Next()
		w.balance()
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// drain ends what waits in the pools: the next server makes its own.
func (w *Worker) drain() error {
	var waiting []*sandbox
	w.pools.mu.Lock()
	for _, p := range w.pools.list {
		waiting = append(waiting, p.ready...)
		p.ready = nil
	}
	w.pools.list = nil
	w.pools.mu.Unlock()
	return w.endAll(waiting)
}

// balance brings each pool one sandbox nearer to what it should have.
func (w *Worker) balance() {
	free := freeMemory()
	w.pools.mu.Lock()
	defer w.pools.mu.Unlock()
	for _, p := range w.pools.list {
		p.ready = slices.DeleteFunc(p.ready, func(s *sandbox) bool { return s.ctx.Err() != nil })
		if p.Image == "" || len(p.ready) >= p.Size || time.Now().Before(p.later) {
			continue
		}
		if p.Reason = ""; free < poolGrows {
			p.Reason = "the machine's memory is needed: the pool waits"
			continue
		}
		w.maker.want(job{key: "pool " + p.ID, make: func(ctx context.Context) error { return w.fill(ctx, p) }})
	}
	if free < poolShrinks {
		w.wg.Go(func() { w.giveBack("the machine's memory is needed") })
	}
}

// freeMemory is the part of the machine's memory that programs could still have.
func freeMemory() float64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 1
	}
	kilobytes := func(name string) float64 {
		_, rest, _ := strings.Cut(string(text), name+":")
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			return 0
		}
		n, _ := strconv.ParseFloat(fields[0], 64)
		return n
	}
	total := kilobytes("MemTotal")
	if total == 0 {
		return 1
	}
	return kilobytes("MemAvailable") / total
}

// giveBack ends one waiting sandbox of the pool that has most, if any waits.
func (w *Worker) giveBack(why string) bool {
	w.pools.mu.Lock()
	var from *pool
	for _, p := range w.pools.list {
		if len(p.ready) > 0 && (from == nil || len(p.ready) > len(from.ready)) {
			from = p
		}
	}
	if from == nil {
		w.pools.mu.Unlock()
		return false
	}
	last := len(from.ready) - 1
	s := from.ready[last]
	from.ready = from.ready[:last]
	from.Reason, from.later = why, time.Now().Add(poolRetry)
	w.pools.mu.Unlock()
	s.log.Info("a sandbox that waited in a pool is ended", "pool", from.ID, "reason", why)
	_ = w.end(s, ending{state: innerdock.StateTerminated}) // logged there
	return true
}

// fill makes one sandbox for a pool.
func (w *Worker) fill(ctx context.Context, p *pool) error {
	w.pools.mu.Lock()
	wanted := p.Pool
	w.pools.mu.Unlock()
	s, err := w.makePooled(ctx, wanted)
	w.pools.mu.Lock()
	known := slices.Contains(w.pools.list, p)
	switch {
	case err == nil && known:
		p.ready = append(p.ready, s)
	case err != nil:
		p.Reason, p.later = err.Error(), time.Now().Add(poolRetry)
	}
	w.pools.mu.Unlock()
	if err == nil && !known { // it was deleted meanwhile
		return w.end(s, ending{state: innerdock.StateTerminated})
	}
	return err
}

// makePooled makes a sandbox that is nobody's yet, and waits until it is ready.
func (w *Worker) makePooled(ctx context.Context, p innerdock.Pool) (*sandbox, error) {
	image, err := w.images.Get(ctx, p.Image)
	if err != nil {
		return nil, err
	}
	rec := &store.Record{Tenant: poolTenant, Internal: true, Pool: p.ID}
	begin(rec, image)
	rec.ID, rec.State, rec.CreatedAt = newID(w.Prefix), innerdock.StateCreating, time.Now().UTC()
	rec.Timings = map[string]float64{}
	rec.CPU, rec.Memory, rec.Disk = min(defaultCPU, maxCPU()), p.Memory, p.Disk
	rec.Docker.State = innerdock.DockerDisabled
	if p.Docker {
		rec.Spec.Docker = innerdock.DockerSpec{Enabled: true, ReadyTimeout: templateDocker}
		rec.Docker = innerdock.DockerStatus{State: innerdock.DockerStarting, Profile: p.Profile}
	}
	s, err := w.create(ctx, rec, w.images.Root(rec.Image))
	if err != nil {
		return nil, err
	}
	if err := s.settle(ctx); err != nil {
		return nil, errors.Join(err, w.end(s, ending{state: innerdock.StateTerminated}))
	}
	return s, nil
}

// take takes a sandbox that fits out of its pool. The returned function puts it
// back. There may be none: nil.
func (w *Worker) take(rec *store.Record) (s *sandbox, back func()) {
	if rec.Spec.Docker.Enabled && daemonVariable(rec) != "" {
		return nil, nil
	}
	w.pools.mu.Lock()
	defer w.pools.mu.Unlock()
	for _, p := range w.pools.list {
		if !p.fits(rec) {
			continue
		}
		for len(p.ready) > 0 {
			s := p.ready[0]
			p.ready = p.ready[1:]
			if s.ctx.Err() == nil && s.dead.Err() == nil {
				return s, func() { w.putBack(p, s) }
			}
		}
	}
	return nil, nil
}

func (w *Worker) putBack(p *pool, s *sandbox) {
	w.pools.mu.Lock()
	known := slices.Contains(w.pools.list, p)
	if known {
		p.ready = slices.Insert(p.ready, 0, s)
	}
	w.pools.mu.Unlock()
	if !known {
		w.wg.Go(func() { _ = w.end(s, ending{state: innerdock.StateTerminated}) }) // logged there
	}
}

// claim makes a sandbox that waited into the one that is asked for. It returns
// nil if none waits, or if it turns out to be unusable, and is ended for that.
// It is in the store first whose it is, so that a server that is killed from then
// on ends it.
func (w *Worker) claim(ctx context.Context, asked *store.Record) (*sandbox, error) {
	s, back := w.take(asked)
	if s == nil {
		return nil, nil
	}
	defer w.pools.changed.Fire() // it has one too few
	clock := newStopwatch(map[string]float64{})
	rec, err := w.Store.Claim(ctx, s.id, *asked)
	if err != nil {
		back()
		return nil, err
	}
	clock.lap("claim")
	if err = w.become(ctx, s, rec, clock); err == nil {
		return s, nil
	}
	s.log.Error("a sandbox that waited in a pool could not be used", "error", err)
	if failure := w.end(s, ending{state: innerdock.StateFailed, reason: "it could not be used: " + err.Error()}); failure != nil {
		return nil, failure
	}
	if cause := context.Cause(ctx); cause != nil {
		return nil, innerdock.Errorf(innerdock.CodeUnavailable, "creating the sandbox was given up: %w", cause)
	}
	return nil, nil
}

// become gives a sandbox what its record says.
func (w *Worker) become(ctx context.Context, s *sandbox, rec store.Record, clock *stopwatch) error {
	policy, err := policyOf(rec.Spec.Network)
	if err != nil {
		return err
	}
	endpoint, err := w.Network.Adopt(ctx, s.id, rec.NetIndex, policy)
	if err != nil {
		return err
	}
	clock.lap("network")
	if err := runtime.SetCPU(s.id, rec.CPU); err != nil {
		return err
	}
	clock.lap("runtime")
	greeting, cancel := context.WithTimeout(ctx, agentTimeout)
	defer cancel()
	if err := w.greet(greeting, s, &rec, endpoint); err != nil {
		return err
	}
	clock.lap("agent")
	stored, err := w.Store.Update(ctx, s.id, func(r *store.Record) error {
		r.State, r.Timings = innerdock.StateRunning, clock.laps
		if r.Docker.State == innerdock.DockerReady {
			r.Docker.Seconds = time.Since(rec.CreatedAt).Seconds()
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.log.Info("sandbox is running", "seconds", time.Since(rec.CreatedAt).Seconds(), "start", stored.Start)
	w.watchIdle(s, stored)
	return nil
}
