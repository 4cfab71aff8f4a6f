package cli

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/innerdock/innerdock"
)

func (a *app) lsCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"ps", "list"},
		Short:   "List sandboxes",
		Example: `  innerdock ls
  innerdock ls --all -o json
  innerdock rm $(innerdock ls -q)`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "those that have ended too")
	cmd.RunE = a.withClient(func(ctx context.Context, c *innerdock.Client, _ []string) error {
		sandboxes, err := c.Sandboxes(ctx, all)
		if err != nil {
			return err
		}
		ids := make([]string, len(sandboxes))
		t := table{titles: []string{"ID", "NAME", "STATE", "DOCKER", "IMAGE", "CPU", "MEMORY", "AGE"}}
		for i, s := range sandboxes {
			ids[i] = s.ID
			t.add(s.ID, orDash(s.Name), string(s.State), string(s.Docker.State), shortImage(s.Image),
				strconv.FormatFloat(s.CPU, 'g', -1, 64), size(s.Memory), age(s.CreatedAt))
		}
		return a.show(sandboxes, ids, func() table { return t })
	})
	return cmd
}
