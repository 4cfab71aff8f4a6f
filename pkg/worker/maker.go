package worker

import (
	"context"
	"sync"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/runtime"
	"github.com/innerdock/innerdock/pkg/store"
	"github.com/innerdock/innerdock/pkg/worker/broadcast"
)

// templateTenant owns the sandboxes that templates are made of: nobody.
const templateTenant = "-template"

const (
	templateTimeout = 2 * time.Minute
	templateDocker  = 60.0      // seconds that dockerd has
	templateMemory  = 512 << 20 // at least, and what its shape says
	// quietWait is how long the making of a template waits for a moment in which
	// no sandbox is being started.
	quietWait = 10 * time.Second
)

// maker makes what is to be ready before anybody asks for it, templates and the
// sandboxes of pools, one at a time.
type maker struct {
	changed broadcast.Signal // of all below

	mu     sync.Mutex
	known  map[string]*job // by key: in the queue, being made, or failed for good
	queue  []*job
	starts int // sandboxes that are being started
}

// job makes what the key names.
type job struct {
	key  string
	make func(ctx context.Context) error
	once bool          // when it has failed, nobody tries it again unless asked by name
	done chan struct{} // closed when it was tried
	err  error         // then
}

// starting notes that a sandbox is being started, until the returned function
// is called.
func (m *maker) starting() (started func()) {
	m.add(1)
	return sync.OnceFunc(func() { m.add(-1) })
}

func (m *maker) add(n int) {
	m.mu.Lock()
	m.starts += n
	m.mu.Unlock()
	m.changed.Fire()
}

// want asks for what the key names, unless it was asked for already.
func (m *maker) want(j job) *job {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.enqueue(j)
}

// again asks for what the key names, also if it has failed before.
func (m *maker) again(j job) *job {
	m.mu.Lock()
	defer m.mu.Unlock()
	if earlier := m.known[j.key]; earlier != nil {
		select {
		case <-earlier.done:
			delete(m.known, j.key)
		default:
		}
	}
	return m.enqueue(j)
}

func (m *maker) enqueue(j job) *job {
	if known := m.known[j.key]; known != nil {
		return known
	}
	j.done = make(chan struct{})
	m.known[j.key] = &j
	m.queue = append(m.queue, &j)
	m.changed.Fire()
	return &j
}

// finish ends a job. It may be asked for again unless it has failed for good: for
// want of room it has not.
func (m *maker) finish(j *job, err error) {
	m.mu.Lock()
	if !j.once || err == nil || innerdock.CodeOf(err) == innerdock.CodeExhausted {
		delete(m.known, j.key)
	}
	m.mu.Unlock()
	j.err = err
	close(j.done)
}

// next returns what is wanted first, when no sandbox is being started or none
// of the moments without came; false when ctx is done.
func (m *maker) next(ctx context.Context) (*job, bool) {
	var late <-chan time.Time
	hurry := false
	for {
		changed := m.changed.Next()
		m.mu.Lock()
		waiting := len(m.queue) > 0
		if waiting && (m.starts == 0 || hurry) {
			first := m.queue[0]
			m.queue = m.queue[1:]
			m.mu.Unlock()
			return first, true
		}
		m.mu.Unlock()
		if waiting && late == nil {
			timer := time.NewTimer(quietWait)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-changed:
		case <-late:
			hurry = true
		case <-ctx.Done():
			return nil, false
		}
	}
}

// make makes what is wanted until ctx is done.
func (w *Worker) make(ctx context.Context) {
	w.discardTemplates(ctx)
	for {
		job, ok := w.maker.next(ctx)
		if !ok {
			return
		}
		err := job.make(ctx)
		if err != nil && ctx.Err() == nil {
			w.Logger.Error("what was to be ready could not be made", "what", job.key, "error", err)
		}
		w.maker.finish(job, err)
		if ctx.Err() != nil {
			return
		}
		w.pools.changed.Fire()
	}
}

// discardTemplates discards those of images that are gone.
func (w *Worker) discardTemplates(ctx context.Context) {
	if w.templates == nil {
		return
	}
	err := w.templates.DiscardImages(ctx, func(image string) bool {
		_, err := w.images.Get(ctx, image)
		return innerdock.CodeOf(err) != innerdock.CodeImageNotFound
	})
	if err != nil {
		w.Logger.Error("templates of removed images could not be discarded", "error", err)
	}
}

// makeTemplate starts a sandbox with the layout of asked and nothing else of
// it, and keeps its checkpoint.
func (w *Worker) makeTemplate(ctx context.Context, key string, asked store.Record) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, templateTimeout)
	defer cancel()
	image, err := w.images.Get(ctx, asked.Image)
	if err != nil {
		return err
	}
	rec := &store.Record{Tenant: templateTenant, Internal: true}
	begin(rec, image)
	rec.ID, rec.State, rec.CreatedAt = newID(w.Prefix), innerdock.StateCreating, time.Now().UTC()
	rec.Timings = map[string]float64{}
	rec.CPU, rec.Memory, rec.Shape, rec.Disk = min(defaultCPU, maxCPU()), max(shape(asked.Memory), templateMemory), shape(asked.Memory), asked.Disk
	rec.Spec.Network.Block = true
	rec.Spec.Docker = innerdock.DockerSpec{Enabled: true, ReadyTimeout: templateDocker}
	rec.Docker = innerdock.DockerStatus{State: innerdock.DockerStarting, Profile: asked.Docker.Profile}
	t := store.Template{Key: key, Image: image.ID, Memory: rec.Shape, Disk: rec.Disk, Profile: rec.Docker.Profile}
	err = w.templates.Make(ctx, t, func(dir string) error {
		return w.checkpointFresh(ctx, rec, w.images.Root(image.ID), dir)
	})
	if err != nil {
		return innerdock.Errorf(innerdock.CodeOf(err), "a template could not be made; its sandboxes are started cold: %w", err)
	}
	w.Logger.Info("a template was made", "template", key, "image", image.ID, "docker", asked.Docker.Profile, "seconds", time.Since(began).Seconds())
	return nil
}

// checkpointFresh writes the checkpoint of a sandbox that has just come to rest,
// and ends it.
func (w *Worker) checkpointFresh(ctx context.Context, rec *store.Record, root, dir string) error {
	s, err := w.create(ctx, rec, root)
	if err != nil {
		return err
	}
	if err := s.settle(ctx); err != nil {
		_ = w.end(s, ending{state: innerdock.StateTerminated}) // logged there
		return err
	}
	var taken error = innerdock.Errorf(innerdock.CodeUnavailable, "the sandbox ended before its checkpoint was taken")
	err = w.end(s, ending{state: innerdock.StateTerminated, last: func(ctx context.Context) {
		if taken = s.agent.freeze(ctx); taken == nil {
			taken = w.Runtime.Checkpoint(ctx, s.id, dir, runtime.End)
		}
	}})
	if err != nil {
		return err
	}
	return taken
}

// settle waits until Docker is ready, if it is to be.
func (s *sandbox) settle(ctx context.Context) error {
	for {
		changed := s.dockerChanged.Next()
		switch status := s.dockerStatus(); status.State {
		case innerdock.DockerReady, innerdock.DockerDisabled:
			return nil
		case innerdock.DockerFailed:
			return &innerdock.Error{Code: status.Code, Message: status.Reason}
		}
		select {
		case <-changed:
		case <-s.dead.Done():
			return innerdock.Errorf(innerdock.CodeInternal, "the sandbox died while Docker was started: %s", causeOfDeath(s.id))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
