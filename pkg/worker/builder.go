package worker

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image"
	"github.com/innerdock/innerdock/pkg/store"
)

const (
	// maxBuilds is how many Dockerfiles are built at a time, and maxTenantBuilds
	// how many of them for one tenant.
	maxBuilds       = 4
	maxTenantBuilds = 2
	// maxBuilders is how many builders live, with those that wait.
	maxBuilders = 8
	// builderReady is what dockerd has for its start, in seconds.
	builderReady = 120.0
)

// What builders have unless Config says otherwise.
const (
	DefaultBuildTime   = time.Hour
	DefaultBuilderIdle = time.Hour
	DefaultBuilderDisk = 20 << 30
)

// builders are the sandboxes that build Dockerfiles. Each belongs to one tenant
// and has its cache; it waits for the next build and outlives the server, like
// every sandbox, until nobody has built anything for a while.
type builders struct {
	slots chan struct{} // builds

	mu sync.Mutex
	of map[string]*tenantBuilds
}

// tenantBuilds are the builds of one tenant.
type tenantBuilds struct {
	slots   chan struct{}
	making  chan struct{} // held by who makes the builder
	builder *builder      // of builders.mu; nil: there is none
}

// builder is a sandbox that builds. Its fields but the first are of builders.mu.
type builder struct {
	sandbox *sandbox
	orderly bool // what an earlier server did in it is over
	spoilt  bool // it is not to be used again
	builds  int
	used    time.Time
}

func (b *builders) tenant(tenant string) *tenantBuilds {
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.of[tenant]
	if one == nil {
		one = &tenantBuilds{slots: make(chan struct{}, maxTenantBuilds), making: make(chan struct{}, 1)}
		b.of[tenant] = one
	}
	return one
}

// keepBuilder has a sandbox be a tenant's builder.
func (w *Worker) keepBuilder(t *tenantBuilds, b *builder) {
	b.used = time.Now()
	w.builders.mu.Lock()
	t.builder = b
	w.builders.mu.Unlock()
	w.wg.Go(func() { w.endIdle(t, b) })
}

// adoptBuilder takes over a builder of an earlier server.
func (w *Worker) adoptBuilder(s *sandbox, tenant string) {
	w.keepBuilder(w.builders.tenant(tenant), &builder{sandbox: s})
}

// queue waits for a build's turn, and returns what ends it. It says so when there
// is something to wait for.
func (w *Worker) queue(ctx context.Context, t *tenantBuilds, waiting func()) (done func(), err error) {
	var held []chan struct{}
	done = func() {
		for _, slots := range held {
			<-slots
		}
	}
	for _, slots := range []chan struct{}{t.slots, w.builders.slots} {
		select {
		case slots <- struct{}{}:
		default:
			waiting()
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				done()
				return nil, context.Cause(ctx)
			}
		}
		held = append(held, slots)
	}
	return done, nil
}

// enter returns a tenant's builder, which is made if need be, and is not ended as
// idle before leave.
func (w *Worker) enter(ctx context.Context, tenant string, t *tenantBuilds, imageID func(context.Context) (string, error)) (*builder, error) {
	select {
	case t.making <- struct{}{}:
		defer func() { <-t.making }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	w.builders.mu.Lock()
	b := t.builder
	if b != nil && (b.spoilt || b.sandbox.ctx.Err() != nil) {
		b, t.builder = nil, nil
	}
	if b != nil {
		b.builds++
	}
	w.builders.mu.Unlock()
	if b == nil {
		s, err := w.makeBuilder(ctx, tenant, imageID)
		if err != nil {
			return nil, err
		}
		b = &builder{sandbox: s, orderly: true, builds: 1}
		w.keepBuilder(t, b)
	}
	err := b.sandbox.settle(ctx)
	if err == nil && !b.orderly { // only who makes the builder changes it
		err = b.sandbox.tidy(ctx)
		b.orderly = err == nil
	}
	if err != nil {
		w.leave(t, b, ctx.Err() == nil)
		return nil, err
	}
	return b, nil
}

// leave ends a build in a builder. One that is spoilt ends with its last build.
func (w *Worker) leave(t *tenantBuilds, b *builder, spoilt bool) {
	w.builders.mu.Lock()
	b.builds--
	b.used = time.Now()
	b.spoilt = b.spoilt || spoilt
	over := b.builds == 0 && (b.spoilt || t.builder != b)
	if over && t.builder == b {
		t.builder = nil
	}
	w.builders.mu.Unlock()
	if over {
		w.endBuilder(b)
	}
}

func (w *Worker) endBuilder(b *builder) {
	_ = w.end(b.sandbox, ending{state: innerdock.StateTerminated}) // logged there
}

// makeBuilder starts a sandbox for a tenant's builds.
func (w *Worker) makeBuilder(ctx context.Context, tenant string, imageID func(context.Context) (string, error)) (*sandbox, error) {
	w.makeRoom()
	id, err := imageID(ctx)
	if err != nil {
		return nil, err
	}
	img, err := w.images.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	rec := &store.Record{Tenant: builderTenant, Internal: true, Builder: tenant, Env: maps.Clone(img.Env)}
	rec.ID, rec.State, rec.CreatedAt = newID(w.Prefix), innerdock.StateCreating, time.Now().UTC()
	rec.Image, rec.Timings = img.ID, map[string]float64{}
	rec.CPU, rec.Memory, rec.Disk = maxCPU(), min(builderMemory, totalMemory()), w.BuilderDisk
	rec.Spec.Docker = innerdock.DockerSpec{Enabled: true, ReadyTimeout: builderReady}
	rec.Docker = innerdock.DockerStatus{State: innerdock.DockerStarting, Profile: innerdock.ProfileFull}
	return w.create(ctx, rec, w.images.Root(img.ID))
}

// makeRoom ends the builder that has waited longest when there are many.
func (w *Worker) makeRoom() {
	w.builders.mu.Lock()
	live := 0
	var oldest *tenantBuilds
	for _, t := range w.builders.of {
		if t.builder == nil {
			continue
		}
		live++
		if t.builder.builds == 0 && (oldest == nil || t.builder.used.Before(oldest.builder.used)) {
			oldest = t
		}
	}
	if live < maxBuilders || oldest == nil {
		w.builders.mu.Unlock()
		return
	}
	b := oldest.builder
	oldest.builder = nil
	w.builders.mu.Unlock()
	w.endBuilder(b)
}

// endIdle ends a builder that nobody has used for long.
func (w *Worker) endIdle(t *tenantBuilds, b *builder) {
	timer := time.NewTimer(w.BuilderIdle)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-b.sandbox.ctx.Done(): // it has ended, or the server closes and it lives on
			return
		}
		w.builders.mu.Lock()
		idle := time.Since(b.used)
		over := t.builder == b && b.builds == 0 && idle >= w.BuilderIdle
		if over {
			t.builder = nil
		}
		w.builders.mu.Unlock()
		if over {
			b.sandbox.log.Info("builder was idle", "seconds", idle.Seconds())
			w.endBuilder(b)
			return
		}
		timer.Reset(max(w.BuilderIdle-idle, time.Second))
	}
}

// EndBuilder ends a tenant's builder with its cache, and what is built in it, and
// removes the tenant's cache of pip.
func (w *Worker) EndBuilder(tenant string) error {
	t := w.builders.tenant(tenant)
	w.builders.mu.Lock()
	b := t.builder
	t.builder = nil
	w.builders.mu.Unlock()
	err := w.pip.Remove(tenant)
	if b != nil {
		err = errors.Join(err, w.end(b.sandbox, ending{state: innerdock.StateTerminated}))
	}
	return err
}

// BuildDockerfile implements image.Builder.
func (w *Worker) BuildDockerfile(ctx context.Context, tenant string, b image.DockerfileBuild, output func(line string), take imageTaker) error {
	t := w.builders.tenant(tenant)
	done, err := w.queue(ctx, t, func() { output("waiting for other builds to end") })
	if err != nil {
		return err
	}
	defer done()
	builder, err := w.enter(ctx, tenant, t, b.Sandbox)
	if err != nil {
		return builderError(ctx, err)
	}
	s := builder.sandbox
	ctx, cancel := context.WithTimeoutCause(ctx, w.BuildTime, innerdock.Errorf(innerdock.CodeImageBuildFailed,
		"the build took longer than %v; make it smaller, or start the server with a longer --build-time", w.BuildTime))
	defer cancel()
	work := &workshop{sandbox: s, build: b, output: output}
	err = work.run(ctx, take)
	select {
	case <-s.dead.Done():
		err = innerdock.Errorf(innerdock.CodeImageBuildFailed,
			"the builder ended: %s (it has %d MiB of memory, and its processes can be %d)", causeOfDeath(s.id), s.memory>>20, maxPIDs)
	default:
	}
	w.leave(t, builder, work.spoilt)
	return builderError(ctx, err)
}

// builderError says why a build that was given up was.
func builderError(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
