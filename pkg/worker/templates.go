package worker

import (
	"context"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/store"
)

// CreateTemplate returns the template of a kind of sandbox, made if need be.
func (w *Worker) CreateTemplate(ctx context.Context, spec innerdock.TemplateSpec) (innerdock.Template, error) {
	if w.templates == nil {
		return innerdock.Template{}, innerdock.Errorf(innerdock.CodeUnsupported, "warm starts are turned off; start the server with --templates larger than 0")
	}
	rec, err := w.plan(ctx, templateTenant, innerdock.SandboxSpec{Image: spec.Image, Memory: spec.Memory, Disk: spec.Disk,
		Docker: innerdock.DockerSpec{Enabled: true, Profile: spec.Profile}})
	if err != nil {
		return innerdock.Template{}, err
	}
	key := w.layout(rec, w.images.Root(rec.Image)).key()
	for {
		if t, ok := w.templates.Get(key); ok {
			return t, nil
		}
		job := w.maker.again(w.templateJob(key, *rec))
		select {
		case <-job.done:
			if job.err != nil {
				return innerdock.Template{}, job.err
			}
		case <-ctx.Done():
			return innerdock.Template{}, context.Cause(ctx)
		case <-w.ctx.Done():
			return innerdock.Template{}, innerdock.Errorf(innerdock.CodeUnavailable, "the server is being stopped; try again when it runs")
		}
	}
}

// Templates lists the templates, oldest first.
func (w *Worker) Templates() []innerdock.Template {
	if w.templates == nil {
		return []innerdock.Template{}
	}
	return w.templates.List()
}

// DeleteTemplate removes a template.
func (w *Worker) DeleteTemplate(ctx context.Context, id string) error {
	if w.templates != nil {
		if _, ok := w.templates.Get(id); ok {
			return w.templates.Discard(ctx, id)
		}
	}
	return innerdock.Errorf(innerdock.CodeNotFound, "there is no template %q; innerdock template ls lists them", id)
}

// templateJob makes the template of a key, which a sandbox like asked would have liked.
func (w *Worker) templateJob(key string, asked store.Record) job {
	return job{key: key, once: true, make: func(ctx context.Context) error { return w.makeTemplate(ctx, key, asked) }}
}

// ImageRemoved has the templates of an image that is gone discarded, soon.
func (w *Worker) ImageRemoved(id string) {
	if w.templates != nil {
		w.maker.want(job{key: "image " + id, make: func(ctx context.Context) error {
			return w.templates.DiscardImages(ctx, func(image string) bool { return image != id })
		}})
	}
}
