package worker

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image"
	"github.com/innerdock/innerdock/pkg/image/upper"
	"github.com/innerdock/innerdock/pkg/store"
)

// Builders belong to nobody: no tenant can see or name them.
const builderTenant = "-builder"

// exitNotFound is a shell's exit code for a command that is not there.
const exitNotFound = 127

const (
	builderMemory = 4 << 30
	builderDisk   = 20 << 30
)

// RunSteps implements image.Runner with a sandbox of its own on root.
func (w *Worker) RunSteps(ctx context.Context, tenant, root string, env map[string]string, steps []image.Step,
	output func(step int, line string), layer io.Writer) error {
	rec := builderRecord(newID(w.Prefix), env)
	s, err := w.create(ctx, rec, root)
	if err != nil {
		return err
	}
	defer func() { _ = w.end(s, ending{state: innerdock.StateTerminated}) }() // logged there
	pip := w.pipUse(s, tenant)
	for i, step := range steps {
		if err := s.runStep(ctx, i, pip.step(ctx, step), output); err != nil {
			pip.keep(ctx)
			return err
		}
	}
	pip.keep(ctx)
	return w.upperLayer(ctx, s.id, upper.ToLayer, layer)
}

// PullInside implements image.Runner with a sandbox of its own on root, whose
// Docker pulls.
func (w *Worker) PullInside(ctx context.Context, root string, env map[string]string, images []string,
	output func(i int, line string), layer io.Writer) error {
	rec := builderRecord(newID(w.Prefix), env)
	rec.Spec.Docker = innerdock.DockerSpec{Enabled: true, ReadyTimeout: templateDocker}
	rec.Docker = innerdock.DockerStatus{State: innerdock.DockerStarting, Profile: innerdock.ProfileFull}
	s, err := w.create(ctx, rec, root)
	if err != nil {
		return err
	}
	defer func() { _ = w.end(s, ending{state: innerdock.StateTerminated}) }() // logged there
	if err := s.settle(ctx); err != nil {
		return err
	}
	for i, ref := range images {
		pull := image.Step{Name: "docker pull " + ref, Args: []string{"docker", "pull", "--quiet", ref}}
		if err := s.runStep(ctx, i, pull, output); err != nil {
			return err
		}
	}
	if err := s.agent.keepImages(ctx); err != nil {
		return err
	}
	return w.upperLayer(ctx, s.id, upper.KeptToLayer, layer)
}

// builderRecord is of a sandbox without Docker that belongs to nobody.
func builderRecord(id string, env map[string]string) *store.Record {
	rec := &store.Record{Tenant: builderTenant, Internal: true, Env: env}
	rec.ID, rec.State, rec.CreatedAt = id, innerdock.StateCreating, time.Now().UTC()
	rec.CPU, rec.Memory, rec.Disk = maxCPU(), min(builderMemory, totalMemory()), builderDisk
	rec.Docker.State = innerdock.DockerDisabled
	rec.Timings = map[string]float64{}
	return rec
}

func (s *sandbox) runStep(ctx context.Context, i int, step image.Step, output func(step int, line string)) error {
	emit := func(line string) { output(i, line) }
	stdout, stderr := lineWriter{emit: emit}, lineWriter{emit: emit}
	code, err := s.agent.execute(ctx, innerdock.ProcessSpec{Args: step.Args, Cwd: "/"}, stdout.write, stderr.write)
	stdout.end()
	stderr.end()
	if innerdock.CodeOf(err) == innerdock.CodeCommandNotFound {
		output(i, err.Error())
		code, err = exitNotFound, nil
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil && code != 0:
		return &image.StepError{Step: i, ExitCode: code}
	case err == nil:
		return nil
	}
	select {
	case <-s.dead.Done():
		return innerdock.Errorf(innerdock.CodeImageBuildFailed,
			"%s: the builder ended: %s (it has %d MiB of memory)", step.Name, causeOfDeath(s.id), s.memory>>20)
	default:
		return err
	}
}

// Commit makes an image of a running sandbox: of its own image, and of what has
// changed below / since.
func (w *Worker) Commit(ctx context.Context, tenant, idOrName string) (innerdock.Image, error) {
	rec, err := w.Store.Sandbox(ctx, tenant, idOrName)
	if err != nil {
		return innerdock.Image{}, err
	}
	_, done, err := w.use(ctx, rec)
	if err != nil {
		return innerdock.Image{}, err
	}
	defer done()
	return w.images.Commit(ctx, rec.Image, "sandbox "+rec.ID, func(layer io.Writer) error { return w.upperLayer(ctx, rec.ID, upper.ToLayer, layer) })
}

// upperLayer streams what changed in the sandbox to layer, as convert makes it.
func (w *Worker) upperLayer(ctx context.Context, id string, convert func(io.Reader, io.Writer) error, layer io.Writer) error {
	reader, writer := io.Pipe()
	converted := make(chan error, 1)
	go func() {
		err := convert(reader, layer)
		reader.CloseWithError(err)
		converted <- err
	}()
	err := w.Runtime.UpperTar(ctx, id, writer)
	writer.CloseWithError(err)
	if failure := <-converted; err == nil {
		return failure
	}
	return err
}

// lineWriter cuts output into lines of at most maxOutputLine bytes.
type lineWriter struct {
	emit    func(line string)
	partial []byte
}

// maxOutputLine is what image.Runner promises.
const maxOutputLine = 4 << 10

func (l *lineWriter) write(p []byte) {
	for _, b := range p {
		if b == '\n' || len(l.partial) == maxOutputLine {
			l.emit(strings.TrimSuffix(string(l.partial), "\r"))
			l.partial = l.partial[:0]
		}
		if b != '\n' {
			l.partial = append(l.partial, b)
		}
	}
}

// end emits a last line that has no newline.
func (l *lineWriter) end() {
	if len(l.partial) > 0 {
		l.emit(string(l.partial))
	}
}
