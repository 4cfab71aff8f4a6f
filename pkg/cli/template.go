package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/innerdock/innerdock"
)

func (a *app) templateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "template", Aliases: []string{"templates"}, Short: "Manage what sandboxes start warm from",
		Long: `Manage what sandboxes start warm from.

A template is the checkpoint of a sandbox with Docker that nobody has used. The server
makes one by itself after the first sandbox of a kind, and restores the next ones
from it. Make it beforehand, and the first is as fast.`,
	}
	cmd.AddCommand(a.templateMakeCommand(), a.templateListCommand(), a.templateRemoveCommand())
	return cmd
}

func (a *app) templateMakeCommand() *cobra.Command {
	var spec innerdock.TemplateSpec
	var image imageFlags
	var profile string
	cmd := &cobra.Command{
		Use: "make [flags] IMAGE", Aliases: []string{"create"}, Short: "Make a template, wait until it is ready, and print its ID",
		Long: `Make a template, wait until it is ready, and print its ID. One that is there is not
made again.

IMAGE is as for innerdock create --docker.`,
		Example: `  innerdock template make --memory 4Gi python3.11`,
		Args:    cobra.ExactArgs(1),
	}
	flags := cmd.Flags()
	flags.StringVar(&spec.Memory, "memory", "", "memory of the sandboxes, such as 512Mi or 4Gi (default 1Gi)")
	flags.StringVar(&spec.Disk, "disk", "", "disk of the sandboxes (default 10Gi)")
	flags.StringVar(&profile, "docker-profile", "", "full or minimal (default full)")
	image.register(flags)
	cmd.RunE = a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
		p := a.progress()
		var err error
		if spec.Image, err = image.resolve(ctx, c, p, args[0], true); err != nil {
			return err
		}
		p.done(false)
		spec.Profile = innerdock.DockerProfile(profile)
		template, err := c.CreateTemplate(ctx, spec)
		if err != nil {
			return err
		}
		return a.showIDs(template, template.ID)
	})
	return cmd
}

func (a *app) templateListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List templates", Args: cobra.NoArgs,
		RunE: a.withClient(func(ctx context.Context, c *innerdock.Client, _ []string) error {
			templates, err := c.Templates(ctx)
			if err != nil {
				return err
			}
			ids := make([]string, len(templates))
			t := table{titles: []string{"ID", "MEMORY", "DISK", "DOCKER", "SIZE", "AGE", "USED", "IMAGE"}}
			for i, one := range templates {
				ids[i] = one.ID
				t.add(one.ID, size(one.Memory), size(one.Disk), orDash(string(one.Profile)), size(one.Size), age(one.CreatedAt), age(one.UsedAt), shortImage(one.Image))
			}
			return a.show(templates, ids, func() table { return t })
		}),
	}
}

func (a *app) templateRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rm ID...", Aliases: []string{"remove"}, Short: "Remove templates", Args: cobra.MinimumNArgs(1),
		RunE: a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
			var failures []error
			for _, id := range args {
				failures = append(failures, c.DeleteTemplate(ctx, id))
			}
			return errors.Join(failures...)
		}),
	}
}
