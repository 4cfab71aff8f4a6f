package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/innerdock/innerdock"
)

func (a *app) pauseCommand() *cobra.Command {
	var persist bool
	cmd := &cobra.Command{
		Use: "pause [flags] SANDBOX...", Short: "Have sandboxes stand still: they take no CPU", Args: cobra.MinimumNArgs(1),
		Long: `Have sandboxes stand still: they take no CPU, and keep their memory.

Processes, containers and connections wait until "innerdock resume"; what needs a
paused sandbox is refused. Doing it twice is no error.

With --persist their memory goes to the disk. Connections from and to them end.`,
	}
	cmd.Flags().BoolVar(&persist, "persist", false, "bring their memory to the disk: they take none")
	cmd.RunE = a.forEach(func(c *innerdock.Client, ctx context.Context, id string) (innerdock.Sandbox, error) {
		if persist {
			return c.PauseToDisk(ctx, id)
		}
		return c.Pause(ctx, id)
	})
	return cmd
}

func (a *app) resumeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "resume SANDBOX...", Short: "Let paused sandboxes go on", Args: cobra.MinimumNArgs(1),
		RunE: a.forEach((*innerdock.Client).Resume),
	}
}

// forEach does something to each sandbox, goes on after one that fails, and
// prints those that did not.
func (a *app) forEach(do func(*innerdock.Client, context.Context, string) (innerdock.Sandbox, error)) func(*cobra.Command, []string) error {
	return a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
		sandboxes, ids, failures := []innerdock.Sandbox{}, []string{}, []error(nil)
		var t table
		for _, id := range args {
			sandbox, err := do(c, ctx, id)
			if err != nil {
				failures = append(failures, err)
				continue
			}
			sandboxes, ids = append(sandboxes, sandbox), append(ids, sandbox.ID)
			t.add(sandbox.ID)
		}
		return errors.Join(append(failures, a.show(sandboxes, ids, func() table { return t }))...)
	})
}
