package cli

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/innerdock/innerdock"
)

// interruptGrace is what an interrupted command gets to end by itself.
const interruptGrace = 5 * time.Second

// execFlags say how a command is run in a sandbox.
type execFlags struct {
	interactive bool
	workdir     string
	user        string
	timeout     time.Duration
}

func (f *execFlags) register(flags *pflag.FlagSet) {
	flags.BoolVarP(&f.interactive, "interactive", "i", false, "pass standard input on")
	flags.StringVarP(&f.workdir, "workdir", "w", "", "working directory (default: the image's, else /workspace)")
	flags.DurationVar(&f.timeout, "timeout", 0, "end it after this time, with exit code 124")
}

// registerUser adds the flag of commands that need not be root's.
func (f *execFlags) registerUser(flags *pflag.FlagSet) {
	flags.StringVarP(&f.user, "user", "u", "", "name or number, and :GROUP if need be (default: the image's, else root)")
}

// limit is ctx with the time-out, if there is one.
func (f *execFlags) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if f.timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, f.timeout, errTimeout)
}

func (a *app) execCommand() *cobra.Command {
	var flags execFlags
	var env []string
	cmd := &cobra.Command{
		Use:   "exec [flags] SANDBOX [--] COMMAND [ARG...]",
		Short: "Run a command in a sandbox",
		Long: `Run a command in a sandbox. No shell is involved: for one, run sh -c.

Standard output, standard error and the exit code are the command's. Ctrl-C
interrupts the command.`,
		Example: `  innerdock exec build -- ls -l
  innerdock exec -w /tmp -e LANG=C build -- sh -c 'echo $LANG > lang'
  tar c . | innerdock exec -i build -- tar x`,
		Args: cobra.MinimumNArgs(2),
	}
	cmd.Flags().SetInterspersed(false)
	flags.register(cmd.Flags())
	flags.registerUser(cmd.Flags())
	cmd.Flags().StringArrayVarP(&env, "env", "e", nil, "NAME=VALUE for the command (repeatable)")
	cmd.RunE = a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
		id, command, err := splitCommand(args)
		if err != nil {
			return err
		}
		spec := innerdock.ProcessSpec{Args: command, Cwd: flags.workdir, User: flags.user, Stdin: flags.interactive}
		if spec.Env, err = parseEnv(env); err != nil {
			return err
		}
		ctx, cancel := flags.limit(ctx)
		defer cancel()
		return a.attach(ctx, c, id, spec)
	})
	return cmd
}

// attached is a command under way.
type attached struct {
	app     *app
	client  *innerdock.Client
	sandbox string
	started chan innerdock.Process
	ended   chan ended
	dropped map[string]int64 // bytes lost of each stream; read once it has ended
}

type ended struct {
	process innerdock.Process
	err     error
}

// attach runs a command to its end with this process's streams. Its exit code
// comes back as an exitError unless it is 0. When ctx ends, the command is
// ended as well.
func (a *app) attach(ctx context.Context, c *innerdock.Client, id string, spec innerdock.ProcessSpec) error {
	streaming, cancel := context.WithCancel(a.abort)
	defer cancel()
	run := &attached{
		app: a, client: c, sandbox: id,
		started: make(chan innerdock.Process, 1), ended: make(chan ended, 1), dropped: map[string]int64{},
	}
	go func() {
		process, err := c.Exec(streaming, id, spec, innerdock.Streams{
			Stdout: a.Stdout, Stderr: a.Stderr, Started: func(p innerdock.Process) { run.started <- p },
			Dropped: func(stream string, bytes int64) { run.dropped[stream] += bytes },
		})
		run.ended <- ended{process, err}
	}()
	pid := 0
	for {
		select {
		case process := <-run.started:
			pid = process.PID
			if spec.Stdin {
				run.feed(streaming, pid)
			}
		case end := <-run.ended:
			return run.result(end)
		case <-ctx.Done():
			run.interrupt(ctx, cancel, pid)
			code, _ := endOf(ctx)
			return &exitError{code: code}
		}
	}
}

// feed sends standard input in the background. Nobody waits for it: a read from
// a terminal cannot be ended, and the end of the command ends innerdock.
func (r *attached) feed(ctx context.Context, pid int) {
	go func() {
		if err := r.client.CopyStdin(ctx, r.sandbox, pid, r.app.Stdin); err != nil && ctx.Err() == nil {
			r.app.report(err)
		}
	}()
}

// interrupt hands the signal on, and kills a command that does not mind it.
func (r *attached) interrupt(ctx context.Context, cancel func(), pid int) {
	defer cancel()
	if pid == 0 {
		select {
		case process := <-r.started:
			pid = process.PID
		default:
			cancel()
			<-r.ended
			return
		}
	}
	first := "SIGTERM"
	var cause interrupted
	if errors.As(context.Cause(ctx), &cause) && cause.signal == syscall.SIGINT {
		first = "SIGINT"
	}
	for _, signal := range []string{first, "SIGKILL"} {
		limit, stop := context.WithTimeout(r.app.abort, interruptGrace)
		if r.client.Signal(limit, r.sandbox, pid, signal) == nil {
			select {
			case <-r.ended:
				stop()
				return
			case <-limit.Done():
			}
		}
		stop()
	}
	cancel()
	<-r.ended
}

// result is the command's exit code, or why there is none.
func (r *attached) result(end ended) error {
	for stream, bytes := range r.dropped {
		r.app.report(innerdock.Errorf(innerdock.CodeExhausted,
			"%d bytes of %s are missing above: the command wrote faster than they were read; "+
				"write to a file in the sandbox and use `innerdock cp`", bytes, stream))
	}
	if end.err == nil {
		if code := end.process.ExitCode; code != nil && *code != 0 {
			return &exitError{code: *code}
		}
		return nil
	}
	if errors.Is(end.err, syscall.EPIPE) { // whoever read our output has left
		limit, stop := context.WithTimeout(r.app.abort, interruptGrace)
		defer stop()
		_ = r.client.Signal(limit, r.sandbox, end.process.PID, "SIGPIPE")
		return &exitError{code: exitSignal + int(syscall.SIGPIPE)}
	}
	switch {
	case innerdock.CodeOf(end.err) == innerdock.CodeCommandNotFound:
		return &exitError{exitNotFound, end.err}
	case innerdock.CodeOf(end.err) == innerdock.CodeInvalid && end.process.PID == 0:
		return &exitError{exitNotExecutable, end.err}
	}
	return end.err
}
