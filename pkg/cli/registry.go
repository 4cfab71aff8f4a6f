package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/registry"
	"github.com/innerdock/innerdock/pkg/registry/seed"
)

func (a *app) registryCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "registry", Short: "Fill, show and empty the sandboxes' registry cache"}
	cmd.AddCommand(a.registrySeedCommand(), a.registryListCommand(), a.registryDfCommand(), a.registryPruneCommand())
	return cmd
}

func (a *app) registrySeedCommand() *cobra.Command {
	var spec innerdock.SeedSpec
	cmd := &cobra.Command{
		Use:   "seed [--if-offline] [NAME...]",
		Short: "Put images made on the server's machine into the cache",
		Long: `Put images made on the server's machine into the cache.

hello-world and testcontainers/ryuk come from innerdock itself, busybox and nginx
are made from Debian's packages, in about a minute the first time. Sandboxes then pull them by these
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

func (a *app) registryListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the images in the cache", Args: cobra.NoArgs,
		Long: `List the images in the cache: those that sandboxes have pulled by a tag, and the
seeded ones. SIZE is what is stored of an image; parts that images share count
for each.`,
		RunE: a.withClient(func(ctx context.Context, c *innerdock.Client, _ []string) error {
			images, err := c.RegistryImages(ctx)
			if err != nil {
				return err
			}
			names := make([]string, len(images))
			t := table{titles: []string{"NAME", "DIGEST", "SIZE", "USED", "SEEDED"}}
			for i, image := range images {
				names[i] = image.Name
				seeded := "-"
				if image.Seeded {
					seeded = "yes"
				}
				t.add(image.Name, shortImage(image.Digest), size(image.Bytes), age(image.UsedAt), seeded)
			}
			return a.show(images, names, func() table { return t })
		}),
	}
}

func (a *app) registryDfCommand() *cobra.Command {
	return &cobra.Command{
		Use: "df", Short: "Show what the cache holds and what is behind it", Args: cobra.NoArgs,
		RunE: a.withClient(func(ctx context.Context, c *innerdock.Client, _ []string) error {
			usage, err := c.RegistryUsage(ctx)
			if err != nil {
				return err
			}
			return a.show(usage, []string{strconv.FormatInt(usage.CachedBytes, 10)}, func() table {
				t := table{}
				t.add("Pulled:", fmt.Sprintf("%s of %s", size(usage.CachedBytes), size(usage.MaxBytes)))
				t.add("Reclaimable:", size(usage.ReclaimableBytes))
				t.add("Seeded:", size(usage.SeededBytes))
				t.add("Kept for:", (time.Duration(usage.MaxAge) * time.Second).String())
				t.add("Blobs sent:", fmt.Sprintf("%d, of which %d were downloaded", usage.Served, usage.Downloaded))
				for _, up := range usage.Upstreams {
					t.add("Upstream:", fmt.Sprintf("%s (%s)", up.URL, up.State))
				}
				return t
			})
		}),
	}
}

func (a *app) registryPruneCommand() *cobra.Command {
	var unused time.Duration
	cmd := &cobra.Command{
		Use: "prune [--unused DURATION]", Short: "Remove what was pulled from the cache", Args: cobra.NoArgs,
		Long: `Remove what was pulled from the cache. Sandboxes that ask for it again cause a new
download. Seeded images stay, and what is being sent to a sandbox.`,
		Example: `  innerdock registry prune --unused 24h`,
	}
	cmd.Flags().DurationVar(&unused, "unused", 0, "only what nobody has pulled for so long, such as 24h")
	cmd.RunE = a.withClient(func(ctx context.Context, c *innerdock.Client, _ []string) error {
		if unused < 0 {
			return usage("--unused %s: write a time such as 24h", unused)
		}
		pruned, err := c.PruneRegistry(ctx, unused)
		if err != nil {
			return err
		}
		return a.show(pruned, []string{strconv.FormatInt(pruned.Bytes, 10)}, func() table {
			return table{rows: [][]string{{fmt.Sprintf("removed %d blobs, %s", pruned.Blobs, size(pruned.Bytes))}}}
		})
	})
	return cmd
}

// registryFlags are those of `innerdock server` that speak of the registry cache.
type registryFlags struct {
	upstreams     []string
	auth, maxSize string
	maxAge        time.Duration
}

func (r *registryFlags) add(f *pflag.FlagSet) {
	f.StringArrayVar(&r.upstreams, "registry-upstream", []string{registry.DockerHub},
		"registry behind the sandboxes' registry cache; repeat it for mirrors that are asked first")
	f.StringVar(&r.auth, "registry-auth", "", "file of the form of Docker's config.json with the accounts used there; "+
		"all sandboxes can pull what these may")
	f.StringVar(&r.maxSize, "registry-max-size", "20Gi", "how much the registry cache keeps")
	f.DurationVar(&r.maxAge, "registry-max-age", registry.DefaultMaxAge, "how long it keeps what no sandbox pulls")
}

// config checks the flags.
func (r *registryFlags) config(data string) (cfg registry.Config, err error) {
	cfg = registry.Config{Dir: filepath.Join(data, "registry"), Upstreams: r.upstreams, MaxAge: r.maxAge}
	if cfg.MaxBytes, err = innerdock.ParseQuantity("--registry-max-size", r.maxSize); err != nil {
		return cfg, err
	}
	if r.maxAge <= 0 {
		return cfg, usage("--registry-max-age %s: write a time such as 720h", r.maxAge)
	}
	if r.auth != "" {
		cfg.Credentials, err = registry.ReadCredentials(r.auth)
	}
	return cfg, err
}

// registryCache is server.Registry.
type registryCache struct {
	*registry.Cache
	dir string // where images made from packages are kept
}

// Seed implements server.Registry.
func (r registryCache) Seed(ctx context.Context, spec innerdock.SeedSpec, progress func(line string)) error {
	if spec.IfOffline && r.Reachable(ctx) {
		progress("the registry can be reached: nothing is seeded")
		return nil
	}
	return seed.All(ctx, r.Cache, r.dir, spec.Names, progress)
}
