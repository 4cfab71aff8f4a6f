package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/innerdock/innerdock"
)

func (a *app) rmCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:     "rm SANDBOX...",
		Aliases: []string{"terminate", "stop"},
		Short:   "Terminate sandboxes",
		Long:    "Terminate sandboxes: their processes, files and network are gone. Doing it twice is no error.",
		Example: `  innerdock rm build
  innerdock rm --all`,
	}
	cmd.Flags().BoolVar(&all, "all", false, "all that live")
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
		return a.terminateAll(ctx, c, args)
	})
	return cmd
}

// terminateAll goes on after one that fails, and prints those that ended.
func (a *app) terminateAll(ctx context.Context, c *innerdock.Client, ids []string) error {
	ended, done, failures := []innerdock.Sandbox{}, []string{}, []error(nil)
	for _, id := range ids {
		sandbox, err := c.Terminate(ctx, id)
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
