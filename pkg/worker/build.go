package worker

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image"
	"github.com/innerdock/innerdock/pkg/store"
)

// Builders belong to nobody: no tenant can see or name them.
const builderTenant = "-builder"

const (
	builderMemory = 4 << 30
	builderDisk   = 20 << 30
)

// RunSteps runs an image's steps one after the other, as root, in a sandbox of
// their own on root, and writes what they changed to layer, as a tar. A failing
// step is CodeImageBuildFailed. It implements image.Runner.
func (w *Worker) RunSteps(ctx context.Context, root string, env map[string]string, steps []image.Step,
	output func(step int, line string), layer io.Writer) error {
	rec := &store.Record{Tenant: builderTenant, Internal: true, Env: env}
	rec.ID, rec.State, rec.CreatedAt = newID(w.Prefix), innerdock.StateCreating, time.Now().UTC()
	rec.CPU, rec.Memory, rec.Disk = maxCPU(), min(builderMemory, totalMemory()), builderDisk
	rec.Docker.State = innerdock.DockerDisabled
	rec.Timings = map[string]float64{}
	s, err := w.create(ctx, rec, root)
	if err != nil {
		return err
	}
	defer func() { _ = w.end(s, ending{state: innerdock.StateTerminated}) }() // logged there
	for i, step := range steps {
		if err := s.runStep(ctx, i, step, output); err != nil {
			return err
		}
	}
	return w.Runtime.UpperTar(ctx, s.id, layer)
}

func (s *sandbox) runStep(ctx context.Context, i int, step image.Step, output func(step int, line string)) error {
	lines := lineWriter{emit: func(line string) { output(i, line) }}
	code, err := s.agent.execute(ctx, innerdock.ProcessSpec{Args: step.Args, Cwd: "/"}, lines.write)
	lines.flush()
	if err != nil {
		select {
		case <-s.dead:
			return innerdock.Errorf(innerdock.CodeImageBuildFailed,
				"%s: the builder died; it has %d MiB of memory", step.Name, builderMemory>>20)
		default:
			return err
		}
	}
	if code != 0 {
		return innerdock.Errorf(innerdock.CodeImageBuildFailed, "%s: exit code %d%s", step.Name, code, lines.tail())
	}
	return nil
}

// lineWriter cuts output into lines and keeps the last of them.
type lineWriter struct {
	emit    func(line string)
	partial []byte
	last    []string
}

// maxOutputLine and keptLines cap what is kept of a step's output.
const (
	maxOutputLine = 4 << 10
	keptLines     = 20
)

func (l *lineWriter) write(p []byte) {
	for _, b := range p {
		if b == '\n' || len(l.partial) == maxOutputLine {
			l.flush()
		}
		if b != '\n' && b != '\r' {
			l.partial = append(l.partial, b)
		}
	}
}

func (l *lineWriter) flush() {
	if len(l.partial) == 0 {
		return
	}
	line := string(l.partial)
	l.partial = l.partial[:0]
	l.last = append(l.last, line)
	if len(l.last) > keptLines {
		l.last = l.last[1:]
	}
	l.emit(line)
}

// tail returns the last lines, for an error's message.
func (l *lineWriter) tail() string {
	text := ""
	for _, line := range l.last {
		text += fmt.Sprintf("\n  %s", line)
	}
	if text != "" {
		text = "; its last lines:" + text
	}
	return text
}
