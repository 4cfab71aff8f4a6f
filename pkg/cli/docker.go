package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/innerdock/innerdock"
)

func (a *app) dockerCommand() *cobra.Command {
	var flags execFlags
	var wait bool
	cmd := &cobra.Command{
		Use:   "docker [flags] SANDBOX [-- ARG...]",
		Short: "Run the docker command in a sandbox, or show its Docker's state",
		Long: `Run the docker command in a sandbox once its Docker is ready.

Without arguments after --, show the state of Docker; with --wait, wait until
it is ready first.`,
		Example: `  innerdock docker build -- ps -a
  innerdock docker build -- run --rm hello-world
  innerdock docker --wait build`,
		Args: cobra.MinimumNArgs(1),
	}
	flags.register(cmd.Flags())
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until Docker is ready")
	cmd.RunE = a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
		ctx, cancel := flags.limit(ctx)
		defer cancel()
		if len(args) == 1 {
			return a.dockerStatus(ctx, c, args[0], wait)
		}
		if _, err := a.awaitDocker(ctx, c, a.progress(), args[0]); err != nil {
			return err
		}
		spec := innerdock.ProcessSpec{
			Args: append([]string{"docker"}, args[1:]...), Cwd: flags.workdir, User: "root", Stdin: flags.interactive,
		}
		return a.attach(ctx, c, args[0], spec)
	})
	return cmd
}

func (a *app) dockerStatus(ctx context.Context, c *innerdock.Client, id string, wait bool) error {
	status, err := c.Docker(ctx, id)
	if err == nil && wait {
		status, err = a.awaitDocker(ctx, c, a.progress(), id)
	}
	if err != nil {
		return err
	}
	return a.show(status, []string{string(status.State)}, func() table {
		t := table{titles: []string{"STATE", "PROFILE", "VERSION", "READY AFTER", "REASON"}}
		t.add(string(status.State), orDash(string(status.Profile)), orDash(status.Version),
			fmt.Sprintf("%.2fs", status.Seconds), orDash(status.Reason))
		return t
	})
}
