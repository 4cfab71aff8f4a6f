package cli

import (
	"context"
	"errors"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/innerdock/innerdock"
)

func (a *app) poolCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "pool", Aliases: []string{"pools"}, Short: "Keep sandboxes ready before anybody asks for them",
		Long: `Keep sandboxes ready before anybody asks for them.

A pool holds sandboxes of one image, memory, disk and Docker. Whoever creates one
like that, by any way, gets it from the pool within milliseconds; its name, environment,
cpu and network are as asked for. The pool is filled again in the background, as
long as a quarter of the machine's memory is free, and gives sandboxes back when
less than a tenth is, or when all addresses are in use.`,
	}
	cmd.AddCommand(a.poolCreateCommand(), a.poolListCommand(), a.poolRemoveCommand())
	return cmd
}

func (a *app) poolCreateCommand() *cobra.Command {
	var spec innerdock.PoolSpec
	var image imageFlags
	var profile string
	cmd := &cobra.Command{
		Use: "create [flags] IMAGE", Short: "Create a pool and print its ID",
		Long: `Create a pool and print its ID. It is filled in the background.

IMAGE is as for innerdock create.`,
		Example: `  innerdock pool create --size 10 --docker --memory 4Gi python3.11`,
		Args:    cobra.ExactArgs(1),
	}
	flags := cmd.Flags()
	flags.IntVar(&spec.Size, "size", 1, "how many sandboxes are kept ready")
	flags.StringVar(&spec.Memory, "memory", "", "memory of each, such as 512Mi or 4Gi (default 1Gi)")
	flags.StringVar(&spec.Disk, "disk", "", "disk of each (default 10Gi)")
	flags.BoolVar(&spec.Docker.Enabled, "docker", false, "run Docker in them; installs it in the image where that is built here")
	flags.StringVar(&profile, "docker-profile", "", "full or minimal (default full)")
	image.register(flags)
	cmd.RunE = a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
		p := a.progress()
		var err error
		if spec.Image, err = image.resolve(ctx, c, p, args[0], spec.Docker.Enabled); err != nil {
			return err
		}
		p.done(false)
		spec.Docker.Profile = innerdock.DockerProfile(profile)
		pool, err := c.CreatePool(ctx, spec)
		if err != nil {
			return err
		}
		return a.showIDs(pool, pool.ID)
	})
	return cmd
}

func (a *app) poolListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List pools", Args: cobra.NoArgs,
		RunE: a.withClient(func(ctx context.Context, c *innerdock.Client, _ []string) error {
			pools, err := c.Pools(ctx)
			if err != nil {
				return err
			}
			ids := make([]string, len(pools))
			t := table{titles: []string{"ID", "READY", "MEMORY", "DOCKER", "AGE", "IMAGE", "WAITS FOR"}}
			for i, p := range pools {
				ids[i] = p.ID
				t.add(p.ID, strconv.Itoa(p.Ready)+"/"+strconv.Itoa(p.Size), size(p.Memory), orDash(string(p.Profile)),
					age(p.CreatedAt), shortImage(p.Image), orDash(p.Reason))
			}
			return a.show(pools, ids, func() table { return t })
		}),
	}
}

func (a *app) poolRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rm ID...", Aliases: []string{"remove"}, Short: "End pools and the sandboxes that wait in them", Args: cobra.MinimumNArgs(1),
		RunE: a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
			var failures []error
			for _, id := range args {
				failures = append(failures, c.DeletePool(ctx, id))
			}
			return errors.Join(failures...)
		}),
	}
}
