package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/innerdock/innerdock"
)

func (a *app) rmCommand() *cobra.Command {
	var all bool
	var grace time.Duration
	cmd := &cobra.Command{
		Use:     "rm SANDBOX...",
		Aliases: []string{"terminate", "stop"},
		Short:   "Terminate sandboxes",
		Long: "Terminate sandboxes: their processes, files and network are gone. Doing it twice is no error.\n\n" +
			"Processes and containers get SIGTERM, and what is left after --time is killed.",
		Example: `  innerdock rm build
  innerdock rm --all`,
	}
	cmd.Flags().BoolVar(&all, "all", false, "all that live")
	cmd.Flags().DurationVarP(&grace, "time", "t", innerdock.DefaultGrace, "how long they have to end by themselves; 0 kills at once")
	cmd.RunE = a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
		if (len(args) == 0) != all {
			return usage("name the sandboxes to terminate, or give --all")
		}
		if all {
			sandboxes, err := c.Sandboxes(ctx, false)
			if err != nil {
				return err
			}
			for _, s := range sandboxes {
				args = append(args, s.ID)
			}
		}
		return a.terminateAll(ctx, c, args, grace)
	})
	return cmd
}

// terminateAll goes on after one that fails, and prints those that ended.
func (a *app) terminateAll(ctx context.Context, c *innerdock.Client, ids []string, grace time.Duration) error {
	ended, done, failures := []innerdock.Sandbox{}, []string{}, []error(nil)
	for _, id := range ids {
		sandbox, err := c.TerminateWithin(ctx, id, grace)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		ended, done = append(ended, sandbox), append(done, sandbox.ID)
	}
	shown := a.show(ended, done, func() table {
		var t table
		for _, id := range done {
			t.add(id)
		}
		return t
	})
	return errors.Join(append(failures, shown)...)
}
