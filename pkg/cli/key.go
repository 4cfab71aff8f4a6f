package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/innerdock/innerdock"
)

func (a *app) keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "key", Aliases: []string{"keys"}, Short: "Create, list and revoke API keys",
		Long: "Create, list and revoke the API keys that TCP needs. This works through the server's local socket only.",
	}
	cmd.AddCommand(a.keyCreateCommand(), a.keyListCommand(), a.keyRevokeCommand())
	return cmd
}

func (a *app) keyCreateCommand() *cobra.Command {
	var spec innerdock.KeySpec
	cmd := &cobra.Command{
		Use: "create", Short: "Create an API key and print it, this once",
		Example: `  innerdock key create --name ci
  export INNERDOCK_API_KEY=$(innerdock key create --tenant team-a)`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&spec.Name, "name", "", "what to call it")
	cmd.Flags().StringVar(&spec.Tenant, "tenant", innerdock.DefaultTenant, "whose sandboxes it reaches")
	cmd.RunE = a.withClient(func(ctx context.Context, c *innerdock.Client, _ []string) error {
		key, err := c.CreateKey(ctx, spec)
		if err != nil {
			return err
		}
		return a.show(key, []string{key.Key}, func() table { return table{rows: [][]string{{key.Key}}} })
	})
	return cmd
}

func (a *app) keyListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List API keys", Args: cobra.NoArgs,
		RunE: a.withClient(func(ctx context.Context, c *innerdock.Client, _ []string) error {
			keys, err := c.Keys(ctx)
			if err != nil {
				return err
			}
			ids := make([]string, len(keys))
			t := table{titles: []string{"ID", "NAME", "TENANT", "AGE"}}
			for i, key := range keys {
				ids[i] = key.ID
				t.add(key.ID, orDash(key.Name), key.Tenant, age(key.CreatedAt))
			}
			return a.show(keys, ids, func() table { return t })
		}),
	}
}

func (a *app) keyRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID...", Aliases: []string{"rm"}, Short: "Revoke API keys", Args: cobra.MinimumNArgs(1),
		RunE: a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
			var failures []error
			for _, id := range args {
				failures = append(failures, c.RevokeKey(ctx, id))
			}
			return errors.Join(failures...)
		}),
	}
}
