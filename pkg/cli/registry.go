package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/registry"
	"github.com/innerdock/innerdock/pkg/registry/seed"
)

func (a *app) registryCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "registry", Short: "Fill the sandboxes' registry cache"}
	cmd.AddCommand(a.registrySeedCommand())
	return cmd
}

func (a *app) registrySeedCommand() *cobra.Command {
	var spec innerdock.SeedSpec
	cmd := &cobra.Command{
		Use:   "seed [--if-offline] [NAME...]",
		Short: "Put images made on the server's machine into the cache",
		Long: `Put images made on the server's machine into the cache.

hello-world comes from innerdock itself, busybox and nginx are made from Debian's
packages, in about a minute the first time. Sandboxes then pull them by these
names although no registry can be reached. Without names, all of them.`,
		Example: `  innerdock registry seed --if-offline hello-world nginx`,
	}
	cmd.Flags().BoolVar(&spec.IfOffline, "if-offline", false, "do nothing where the registry behind the cache can be reached")
	cmd.RunE = a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
		spec.Names = args
		p := a.progress()
		err := c.SeedRegistry(ctx, spec, p.build)
		p.done(err != nil && ctx.Err() == nil)
		return err
	})
	return cmd
}

// seeds is server.Seeds on the registry cache.
type seeds struct {
	cache *registry.Cache
	dir   string // where images made from packages are kept
}

// Seed implements server.Seeds.
func (s seeds) Seed(ctx context.Context, spec innerdock.SeedSpec, progress func(line string)) error {
	if spec.IfOffline && s.cache.Reachable(ctx) {
		progress("the registry can be reached: nothing is seeded")
		return nil
	}
	return seed.All(ctx, s.cache, s.dir, spec.Names, progress)
}
