package worker

import (
	"context"
	"time"

	"github.com/innerdock/innerdock"
)

// declaredRetry is how long a declared pool is left alone whose image could not be built.
const declaredRetry = time.Minute

// DeclaredPool is a pool that the server is configured to have. No store knows it: a
// server that is not told of it has none.
type DeclaredPool struct {
	Definition innerdock.ImageDefinition // of the image, which is built if need be
	Spec       innerdock.PoolSpec        // whose image, where it has one, is built already
}

// declarePools checks the pools of the configuration and returns them without their images.
func (w *Worker) declarePools() ([]*pool, error) {
	var declared []*pool
	for _, d := range w.DeclaredPools {
		p, err := w.planPool(d.Spec)
		if err != nil {
			return nil, err
		}
		p.Declared, p.Reason = true, "its image is being built"
		declared = append(declared, &pool{Pool: p})
	}
	return declared, nil
}

// findImages gives the declared pools their images, from which on they are filled,
// until ctx is done. What cannot be had is tried again.
func (w *Worker) findImages(ctx context.Context) {
	for ctx.Err() == nil {
		missing := 0
		for i, d := range w.DeclaredPools {
			p := w.declared[i]
			if w.hasImage(p) {
				continue
			}
			image, err := w.findImage(ctx, d)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				missing++
				w.Logger.Error("the image of a pool could not be built", "pool", p.ID, "error", err)
			}
			w.pools.mu.Lock()
			p.Image, p.Reason = image.ID, ""
			if err != nil {
				p.Reason = "its image could not be built: " + err.Error()
			}
			w.pools.mu.Unlock()
			w.pools.changed.Fire()
		}
		if missing == 0 {
			return
		}
		retry := time.NewTimer(declaredRetry)
		select {
		case <-retry.C:
		case <-ctx.Done():
			retry.Stop()
		}
	}
}

func (w *Worker) findImage(ctx context.Context, d DeclaredPool) (innerdock.Image, error) {
	if d.Spec.Image != "" {
		return w.images.Get(ctx, d.Spec.Image)
	}
	return w.images.Build(ctx, d.Definition, func(string, innerdock.BuildEvent) {})
}

func (w *Worker) hasImage(p *pool) bool {
	w.pools.mu.Lock()
	defer w.pools.mu.Unlock()
	return p.Image != ""
}

// isDeclared reports whether a pool is one of the configuration's.
func (p *pools) isDeclared(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.list {
		if one.ID == id {
			return one.Declared
		}
	}
	return false
}
