package image

import (
	"context"
	"fmt"
	"io"
)

// Runner runs the steps of a definition in a sandbox.
type Runner interface {
	// RunSteps starts a sandbox on root, an EROFS file, and runs the steps in it
	// one after the other: as root, in the directory "/", with env as the whole
	// environment and nothing on standard input. Each line of their output, at
	// most 4 KiB of it and without its newline, goes to output, which is not
	// called concurrently. When all steps ended with code 0, RunSteps writes
	// what they changed to layer, as an OCI layer (uncompressed tar; see
	// upper.ToLayer), and removes the sandbox.
	//
	// A step that ends with another code stops it: the error is a *StepError,
	// and nothing is written.
	//
	// What pip downloads may be kept for later steps of the same tenant, and of no
	// other; for those of "" nothing is kept.
	RunSteps(ctx context.Context, tenant, root string, env map[string]string, steps []Step,
		output func(step int, line string), layer io.Writer) error
}

// Puller has Docker pull images that become part of a root. A Runner may be one.
type Puller interface {
	// PullInside starts a sandbox on root, which has Docker, and has that pull
	// images one after the other. It writes what their Docker is lent of them in
	// sandboxes to layer, as an OCI layer. A pull that fails is a *StepError of
	// the image's index; output is as for RunSteps.
	PullInside(ctx context.Context, root string, env map[string]string, images []string,
		output func(i int, line string), layer io.Writer) error
}

// Step is a command that makes part of an image.
type Step struct {
	Name string   // for people, such as "command 2/3"
	Args []string // the program and its arguments
}

// StepError is a step that failed.
type StepError struct {
	Step     int // index
	ExitCode int // 128 + the signal's number after a signal
}

func (e *StepError) Error() string {
	return fmt.Sprintf("step %d ended with code %d", e.Step+1, e.ExitCode)
}
