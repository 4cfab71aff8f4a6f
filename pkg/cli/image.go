package cli

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/innerdock/innerdock"
)

func (a *app) imageCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "image", Aliases: []string{"images"}, Short: "Build, move and remove images"}
	cmd.AddCommand(a.imageBuildCommand(), a.imageDockerfileCommand(), a.imagePullCommand(), a.imagePushCommand(), a.imageListCommand(), a.imageInspectCommand(),
		a.imageHistoryCommand(), a.imageRemoveCommand(), a.imagePruneCommand(), a.imageImportCommand(), a.imageExportCommand())
	return cmd
}

func (a *app) imageBuildCommand() *cobra.Command {
	var flags imageFlags
	cmd := &cobra.Command{
		Use:   "build [flags] {BASE | CONTEXT}",
		Short: "Build an image and print its ID",
		Long: `Build an image and print its ID.

BASE is a Python version such as python3.11 or an image reference. CONTEXT is a
directory with a Dockerfile: it begins with . or /, or --file is given; what its
.dockerignore names is left out. Steps are done in the order of their flags,
Docker first, and after those of a Dockerfile. What was built before is found
again.

The bases of a Dockerfile are pulled with the accounts that docker login has left
here for their registries; --username is for their one registry, Docker Hub only
if there is no other.`,
		Example: `  innerdock image build --docker python3.11
  innerdock image build --step 'apt-get install -y git' --pip numpy python3.11
  innerdock image build --target app --build-arg VERSION=2 --secret id=TOKEN .`,
		Args: cobra.ExactArgs(1),
	}
	flags.registerDefinition(cmd.Flags())
	flags.registerDockerfile(cmd.Flags())
	flags.define.login.registerBuild(cmd.Flags())
	cmd.RunE = a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
		return a.withProgress(ctx, func(p *progress) (innerdock.Image, error) { return a.buildImage(ctx, c, &flags, args[0], p) })
	})
	return cmd
}

func (a *app) imageDockerfileCommand() *cobra.Command {
	var flags imageFlags
	cmd := &cobra.Command{
		Use:   "dockerfile [flags] {BASE | CONTEXT}",
		Short: "Show what would be built as a Dockerfile",
		Long: `Show what image build would build, as a Dockerfile. Nothing is built.

Argument and flags are those of image build.`,
		Example: `  innerdock image dockerfile --pip numpy --step 'apt-get install -y git' python3.11`,
		Args:    cobra.ExactArgs(1),
	}
	flags.registerDefinition(cmd.Flags())
	flags.registerDockerfile(cmd.Flags())
	cmd.RunE = a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
		def, err := a.define(&flags, args[0])
		if err != nil {
			return err
		}
		text, err := c.Dockerfile(ctx, def)
		if err != nil {
			return err
		}
		_, err = io.WriteString(a.Stdout, text)
		return err
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
			t := table{titles: []string{"ID", "BASE", "SOURCE", "SIZE", "AGE", "USED"}}
			for i, image := range images {
				ids[i] = image.ID
				t.add(image.ID, image.Base, image.Source, size(image.Size), age(image.CreatedAt), age(image.UsedAt))
			}
			return a.show(images, ids, func() table { return t })
		}),
	}
}

func (a *app) imageRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rm IMAGE...", Short: "Remove images that no sandbox uses", Args: cobra.MinimumNArgs(1),
		RunE: a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
			var failures []error
			for _, name := range args {
				id, err := findImage(ctx, c, name)
				if err == nil {
					err = c.RemoveImage(ctx, id)
				}
				failures = append(failures, err)
			}
			return errors.Join(failures...)
		}),
	}
}
