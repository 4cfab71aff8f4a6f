package image

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/innerdock/innerdock"
)

// lastLines is how much of a failed step's output its error shows.
const lastLines = 20

// maxLine is the longest line of output that is passed on, in bytes.
const maxLine = 4096

// stepEnv is what steps have beside the image's environment.
var stepEnv = map[string]string{
	"PATH":            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"HOME":            "/root",
	"DEBIAN_FRONTEND": "noninteractive",
}

// runSteps runs steps on root and returns what they changed.
func (b *build) runSteps(ctx context.Context, root string, env map[string]string, steps []Step) (layer, error) {
	if done := len(b.plan.steps) - len(steps); done > 0 {
		b.say.progress(steps[0].Name, "The first %d steps were run for an earlier image", done)
	}
	b.say.progress(steps[0].Name, "Running %d steps in a sandbox", len(steps))
	return b.layerOf(ctx, steps, func(output func(int, string), w io.Writer) error {
		return b.store.runner.RunSteps(ctx, b.plan.tenant, root, merge(stepEnv, env), steps, output, w)
	})
}

// pullInside has the root's Docker pull the plan's images and returns what is
// added to the root.
func (b *build) pullInside(ctx context.Context, root string, env map[string]string) (layer, error) {
	puller, ok := b.store.runner.(Puller)
	if !ok {
		return layer{}, innerdock.Errorf(innerdock.CodeUnsupported, "this server cannot put Docker images into an image; leave docker_images out")
	}
	steps := make([]Step, len(b.plan.images))
	for i, ref := range b.plan.images {
		steps[i] = Step{Name: "docker pull " + ref}
	}
	b.say.progress(steps[0].Name, "Pulling %d Docker images in a sandbox", len(steps))
	return b.layerOf(ctx, steps, func(output func(int, string), w io.Writer) error {
		return puller.PullInside(ctx, root, merge(stepEnv, env), b.plan.images, output, w)
	})
}

// layerOf returns the layer that run writes while it takes steps.
func (b *build) layerOf(ctx context.Context, steps []Step, run func(output func(int, string), w io.Writer) error) (layer, error) {
	out := &stepOutput{say: b.say, steps: steps, start: time.Now(), at: -1}
	var failed error
	l, err := b.store.makeLayer(b.ws, func(w io.Writer) error {
		failed = run(out.line, w)
		return failed
	})
	if failed != nil {
		return layer{}, out.failure(ctx, failed)
	}
	if err != nil {
		return layer{}, err
	}
	b.say.progress("image", "Steps done in %.1f s", time.Since(out.start).Seconds())
	return l, nil
}

// stepOutput passes the output of steps on, and keeps its end.
type stepOutput struct {
	say   reporter
	steps []Step
	start time.Time
	at    int // the step that wrote last
	last  []string
}

func (o *stepOutput) line(step int, line string) {
	if step < 0 || step >= len(o.steps) {
		return
	}
	if len(line) > maxLine {
		line = line[:maxLine]
	}
	line = strings.ToValidUTF8(line, "\uFFFD")
	if step != o.at {
		o.at, o.last = step, nil
	}
	if o.last = append(o.last, line); len(o.last) > lastLines {
		o.last = o.last[1:]
	}
	o.say.log(o.steps[step].Name, line)
}

// failure turns the runner's error into one for people.
func (o *stepOutput) failure(ctx context.Context, err error) error {
	var failed *StepError
	var coded *innerdock.Error
	switch {
	case errors.As(err, &failed) && failed.Step >= 0 && failed.Step < len(o.steps):
		if o.at != failed.Step {
			o.last = []string{"(it wrote nothing)"}
		}
		return innerdock.Errorf(innerdock.CodeImageBuildFailed, "step %s failed with exit code %d; mend it and build again. Its last lines:\n%s",
			o.steps[failed.Step].Name, failed.ExitCode, strings.Join(o.last, "\n"))
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &coded):
		return err
	}
	return diskError(err, "running the image's steps")
}
