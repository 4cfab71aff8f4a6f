package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/innerdock/innerdock"
)

func (a *app) logsCommand() *cobra.Command {
	var docker bool
	cmd := &cobra.Command{
		Use:   "logs SANDBOX",
		Short: "Show the log of a sandbox's start and life, or of its Docker",
		Example: `  innerdock logs build
  innerdock logs --docker build`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&docker, "docker", false, "what dockerd in the sandbox logged")
	cmd.RunE = a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
		read := c.Logs
		if docker {
			read = c.DockerLogs
		}
		text, err := read(ctx, args[0])
		if err != nil {
			return err
		}
		if a.format == formatJSON {
			return a.show(map[string]string{"log": string(text)}, nil, nil)
		}
		_, err = a.Stdout.Write(text)
		return err
	})
	return cmd
}
