package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/innerdock/innerdock"
)

func (a *app) snapshotCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "snapshot", Aliases: []string{"snapshots"}, Short: "Keep running sandboxes as they are, and go on from there",
		Long: `Keep running sandboxes as they are, and go on from there.

A snapshot holds the memory, the processes and the files of a sandbox, its Docker
with running containers included. The sandbox goes on. Sandboxes that are started
from the snapshot go on from the same moment, each with a name, an address and an
environment of its own.`,
	}
	cmd.AddCommand(a.snapshotCreateCommand(), a.snapshotStartCommand(), a.snapshotListCommand(), a.snapshotRemoveCommand(), a.snapshotExportCommand(), a.snapshotImportCommand())
	return cmd
}

func (a *app) snapshotCreateCommand() *cobra.Command {
	var spec innerdock.SnapshotSpec
	var ttl time.Duration
	cmd := &cobra.Command{
		Use: "create [flags] SANDBOX", Short: "Take a snapshot and print its ID", Args: cobra.ExactArgs(1),
		Example: `  innerdock snapshot create --keep 3 --ttl 168h build`,
	}
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "remove it after this long, such as 24h (default: as the server says)")
	cmd.Flags().IntVar(&spec.Keep, "keep", 0, "keep this many snapshots of the sandbox, and remove older ones (default: as the server says)")
	cmd.RunE = a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
		spec.TTL = ttl.Seconds()
		snapshot, err := c.Snapshot(ctx, args[0], spec)
		if err != nil {
			return err
		}
		return a.showSnapshot(snapshot)
	})
	return cmd
}

func (a *app) showSnapshot(snapshot innerdock.Snapshot) error {
	return a.showIDs(snapshot, snapshot.ID)
}

func (a *app) snapshotStartCommand() *cobra.Command {
	var spec innerdock.SandboxSpec
	var env []string
	cmd := &cobra.Command{
		Use: "start [flags] SNAPSHOT", Short: "Start a sandbox from a snapshot and print its ID", Args: cobra.ExactArgs(1),
		Example: `  innerdock snapshot start --name again lrjcr54yc3ay`,
	}
	flags := cmd.Flags()
	flags.StringVar(&spec.Name, "name", "", "name, unique among your live sandboxes")
	flags.Float64Var(&spec.CPU, "cpu", 0, "cores (default as the sandbox of the snapshot)")
	flags.StringVar(&spec.Memory, "memory", "", "memory (default as the sandbox of the snapshot)")
	flags.StringArrayVarP(&env, "env", "e", nil, "NAME=VALUE for every process that is started (repeatable)")
	cmd.RunE = a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
		var err error
		if spec.Env, err = parseEnv(env); err != nil {
			return err
		}
		spec.Snapshot = args[0]
		sandbox, err := c.CreateSandbox(a.abort, spec)
		if err != nil {
			return err
		}
		return a.showIDs(sandbox, sandbox.ID)
	})
	return cmd
}

func (a *app) snapshotListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List snapshots", Args: cobra.NoArgs,
		RunE: a.withClient(func(ctx context.Context, c *innerdock.Client, _ []string) error {
			snapshots, err := c.Snapshots(ctx)
			if err != nil {
				return err
			}
			ids := make([]string, len(snapshots))
			t := table{titles: []string{"ID", "SANDBOX", "SIZE", "AGE", "EXPIRES", "IMAGE"}}
			for i, s := range snapshots {
				ids[i] = s.ID
				t.add(s.ID, s.Sandbox, size(s.Size), age(s.CreatedAt), expires(s.ExpiresAt), shortImage(s.Image))
			}
			return a.show(snapshots, ids, func() table { return t })
		}),
	}
}

// expires says in how long something is over.
func expires(at time.Time) string {
	if at.IsZero() {
		return "-"
	}
	return time.Until(at).Round(time.Second).String()
}

func (a *app) snapshotRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rm SNAPSHOT...", Aliases: []string{"remove"}, Short: "Remove snapshots; sandboxes that came of them live on", Args: cobra.MinimumNArgs(1),
		RunE: a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
			var failures []error
			for _, id := range args {
				failures = append(failures, c.DeleteSnapshot(ctx, id))
			}
			return errors.Join(failures...)
		}),
	}
}

func (a *app) snapshotExportCommand() *cobra.Command {
	var output string
	var bare bool
	cmd := &cobra.Command{
		Use: "export [flags] SNAPSHOT", Short: "Export a snapshot as an archive",
		Long: `Export a snapshot as an archive, to standard output.

Another server with the same version of innerdock and runsc can import it. The archive
holds the memory of the sandbox: whoever has it has every secret that was in there.`,
		Example: `  innerdock snapshot export -f build.snapshot lrjcr54yc3ay
  innerdock snapshot export lrjcr54yc3ay | innerdock -H https://other:7070 snapshot import -`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVarP(&output, "file", "f", "", "write this file instead")
	cmd.Flags().BoolVar(&bare, "without-image", false, "leave out the image, which the other server must have")
	cmd.RunE = a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
		if err := a.refuseTerminal(output); err != nil {
			return err
		}
		archive, err := c.ExportSnapshot(ctx, args[0], !bare)
		if err != nil {
			return err
		}
		return a.saveArchive(archive, output)
	})
	return cmd
}

func (a *app) snapshotImportCommand() *cobra.Command {
	return &cobra.Command{
		Use: "import FILE", Short: "Import a snapshot from an archive and print its ID",
		Long: `Import a snapshot from an archive and print its ID. "-" is standard input.

gVisor trusts what is in a snapshot. Administrators import what they trust; others
what this server, or one with the same snapshot.key in its data directory, exported.`,
		Example: `  innerdock snapshot import build.snapshot`,
		Args:    cobra.ExactArgs(1),
		RunE: a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
			archive, closeFile, err := a.openArchive(args[0])
			if err != nil {
				return err
			}
			defer closeFile()
			p := a.progress()
			snapshot, err := c.ImportSnapshot(ctx, &countedReader{r: archive, p: p})
			p.done(err != nil && ctx.Err() == nil)
			if err != nil {
				return err
			}
			return a.showSnapshot(snapshot)
		}),
	}
}

func (a *app) commitCommand() *cobra.Command {
	return &cobra.Command{
		Use: "commit SANDBOX", Short: "Make an image of a sandbox's files, and print its ID",
		Long: `Make an image of a running sandbox's files, and print its ID.

The image is the sandbox's own with what has changed below / since. /tmp and Docker's
data are no part of it, nor are processes: a snapshot holds all of these. Nothing is
frozen meanwhile, so stop what writes first.`,
		Example: `  innerdock create --name next $(innerdock commit build)`,
		Args:    cobra.ExactArgs(1),
		RunE: a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
			image, err := c.Commit(ctx, args[0])
			if err != nil {
				return err
			}
			return a.showIDs(image, image.ID)
		}),
	}
}

func (a *app) forkCommand() *cobra.Command {
	var count int
	cmd := &cobra.Command{
		Use: "fork [flags] SANDBOX", Short: "Copy a running sandbox, and print the IDs of the copies",
		Long: `Copy a running sandbox, and print the IDs of the copies.

The copies go on from the same moment as the sandbox itself, with its processes,
containers and files, as sandboxes of their own. All are made, or none.`,
		Example: `  innerdock fork --count 10 build`,
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().IntVarP(&count, "count", "n", 1, "how many")
	cmd.RunE = a.withClient(func(_ context.Context, c *innerdock.Client, args []string) error {
		copies, err := c.Fork(a.abort, args[0], count)
		if err != nil {
			return err
		}
		ids := make([]string, len(copies))
		for i, sandbox := range copies {
			ids[i] = sandbox.ID
		}
		return a.showIDs(copies, ids...)
	})
	return cmd
}
