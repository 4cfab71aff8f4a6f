package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/innerdock/innerdock"
)

func (a *app) imageCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "image", Aliases: []string{"images"}, Short: "Build, list and remove images"}
	cmd.AddCommand(a.imageBuildCommand(), a.imageListCommand(), a.imageRemoveCommand())
	return cmd
}

func (a *app) imageBuildCommand() *cobra.Command {
	var flags imageFlags
	var docker bool
	cmd := &cobra.Command{
		Use:   "build [flags] BASE",
		Short: "Build an image and print its ID",
		Long: `Build an image and print its ID.

BASE is a Python version such as python3.11 or an image reference. Steps are done
in the order of their flags, Docker first. What was built before is found again.`,
		Example: `  innerdock image build --docker python3.11
  innerdock image build --step 'apt-get install -y git' --pip numpy python3.11`,
		Args: cobra.ExactArgs(1),
	}
	flags.register(cmd.Flags())
	cmd.Flags().StringArrayVarP(&flags.env, "env", "e", nil, "NAME=VALUE for every process of its sandboxes (repeatable)")
	cmd.Flags().BoolVar(&docker, "docker", false, "install Docker")
	cmd.RunE = a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
		def, err := flags.definition(args[0], docker)
		if err != nil {
			return err
		}
		p := a.progress()
		image, err := c.BuildImage(ctx, def, p.build)
		p.done(err != nil && ctx.Err() == nil)
		if err != nil {
			return err
		}
		return a.show(image, []string{image.ID}, func() table { return table{rows: [][]string{{image.ID}}} })
	})
	return cmd
}

func (a *app) imageListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List images", Args: cobra.NoArgs,
		RunE: a.withClient(func(ctx context.Context, c *innerdock.Client, _ []string) error {
			images, err := c.Images(ctx)
			if err != nil {
				return err
			}
			ids := make([]string, len(images))
			t := table{titles: []string{"ID", "BASE", "SOURCE", "SIZE", "AGE"}}
			for i, image := range images {
				ids[i] = image.ID
				t.add(image.ID, image.Base, image.Source, size(image.Size), age(image.CreatedAt))
			}
			return a.show(images, ids, func() table { return t })
		}),
	}
}

func (a *app) imageRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rm ID...", Short: "Remove images", Args: cobra.MinimumNArgs(1),
		RunE: a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
			var failures []error
			for _, id := range args {
				failures = append(failures, c.RemoveImage(ctx, id))
			}
			return errors.Join(failures...)
		}),
	}
}
