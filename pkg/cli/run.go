package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/innerdock/innerdock"
)

// cleanupTime bounds what is done after the end: a signal, a failure.
const cleanupTime = 30 * time.Second

// runFlags say how a command is run in a new sandbox.
type runFlags struct {
	sandboxFlags
	execFlags
	remove bool
}

func (a *app) runCommand() *cobra.Command {
	var flags runFlags
	cmd := &cobra.Command{
		Use:   "run [flags] IMAGE [--] COMMAND [ARG...]",
		Short: "Run a command in a new sandbox",
		Long: `Run a command in a new sandbox, and terminate the sandbox afterwards.

IMAGE is as for create. With --docker, the command starts when Docker is ready.
Standard output and the exit code are the command's. Ctrl-C terminates the
sandbox.`,
		Example: `  innerdock run python3.11 -- python3 -c 'print(6 * 7)'
  innerdock run --docker python3.11 -- docker run hello-world
  innerdock run --rm=false --name kept debian:trixie -- apt-get update
  echo 'print("hi")' | innerdock run -i python3.11 -- python3 -`,
		Args: cobra.MinimumNArgs(2),
	}
	cmd.Flags().SetInterspersed(false)
	flags.sandboxFlags.register(cmd.Flags())
	flags.execFlags.register(cmd.Flags())
	flags.registerUser(cmd.Flags())
	cmd.Flags().BoolVar(&flags.remove, "rm", true, "terminate the sandbox afterwards")
	cmd.RunE = a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
		image, command, err := splitCommand(args)
		if err != nil {
			return err
		}
		ctx, cancel := flags.limit(ctx)
		defer cancel()
		return a.run(ctx, c, &flags, image, command)
	})
	return cmd
}

func (a *app) run(ctx context.Context, c *innerdock.Client, flags *runFlags, image string, command []string) error {
	spec := innerdock.ProcessSpec{Args: command, Cwd: flags.workdir, User: flags.user, Stdin: flags.interactive}
	p := a.progress()
	sandbox, err := a.create(ctx, c, p, &flags.sandboxFlags, image)
	if err != nil {
		return err
	}
	if err = ctx.Err(); err == nil && flags.docker {
		_, err = a.awaitDocker(ctx, c, p, sandbox.ID)
	}
	if err == nil {
		err = a.attach(ctx, c, sandbox.ID, spec)
	}
	if !flags.remove {
		p.say("sandbox %s lives on: innerdock rm %s", sandbox.ID, sandbox.ID)
		return err
	}
	return a.terminate(c, sandbox.ID, err)
}

// terminate ends a sandbox, even after a signal, and returns err or what kept
// it from ending.
func (a *app) terminate(c *innerdock.Client, id string, err error) error {
	ctx, cancel := context.WithTimeout(a.abort, cleanupTime)
	defer cancel()
	if _, failed := c.Terminate(ctx, id); failed != nil && innerdock.CodeOf(failed) != innerdock.CodeNotFound {
		left := usage("sandbox %s could not be terminated (%v); try: innerdock rm %s", id, failed, id)
		return errors.Join(err, left)
	}
	return err
}

// splitCommand takes "NAME [--] COMMAND…" apart.
func splitCommand(args []string) (name string, command []string, err error) {
	name, command = args[0], args[1:]
	if command[0] == "--" {
		command = command[1:]
	}
	if len(command) == 0 {
		return "", nil, usage("a command is missing after %s --", name)
	}
	return name, command, nil
}
