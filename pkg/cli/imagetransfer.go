package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
)

// imageNames is what commands say about their argument IMAGE.
const imageNames = "IMAGE is an ID or the beginning of one; `innerdock image ls` lists them."

// shortestID is how much of an ID is enough to mean an image.
const shortestID = 4

// findImage returns the ID that a name of an image means.
func findImage(ctx context.Context, c *innerdock.Client, name string) (string, error) {
	if imageID.MatchString(name) {
		return name, nil
	}
	beginning := strings.TrimPrefix(name, "sha256:")
	images, err := c.Images(ctx)
	if err != nil {
		return "", err
	}
	var found []string
	for _, image := range images {
		if len(beginning) >= shortestID && strings.HasPrefix(strings.TrimPrefix(image.ID, "sha256:"), beginning) {
			found = append(found, image.ID)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", innerdock.Errorf(innerdock.CodeImageNotFound, "there is no image %q; `innerdock image ls` lists them", name)
	}
	return "", usage("%d images begin with %s; write more of the ID", len(found), name)
}

// registryLogin are flags for an account at a registry.
type registryLogin struct {
	username string
	stdin    bool
}

func (l *registryLogin) register(f *pflag.FlagSet) {
	f.StringVar(&l.username, "username", "", "account at the registry (default: INNERDOCK_REGISTRY_USERNAME, else what the server knows)")
	f.BoolVar(&l.stdin, "password-stdin", false, "read its password from standard input (default: INNERDOCK_REGISTRY_PASSWORD)")
}

// registerBuild adds the flags for the bases of an image that is built.
func (l *registryLogin) registerBuild(f *pflag.FlagSet) {
	f.StringVar(&l.username, "username", "", "account at the registry of the base, or of a Dockerfile's bases (default: for a Dockerfile, those of docker login)")
	f.BoolVar(&l.stdin, "password-stdin", false, "read its password from standard input (default: INNERDOCK_REGISTRY_PASSWORD)")
}

// given reports whether there is a flag of an account.
func (l *registryLogin) given() bool { return l.username != "" || l.stdin }

// credentials are those of the flags or the environment; nil without.
func (l *registryLogin) credentials(a *app) (*innerdock.RegistryCredentials, error) {
	account := innerdock.RegistryCredentials{Username: l.username, Password: a.Getenv("INNERDOCK_REGISTRY_PASSWORD")}
	if account.Username == "" {
		account.Username = a.Getenv("INNERDOCK_REGISTRY_USERNAME")
	}
	if l.stdin {
		password, err := io.ReadAll(io.LimitReader(a.Stdin, 64<<10))
		if err != nil {
			return nil, innerdock.Errorf(innerdock.CodeInvalid, "reading the password: %w", err)
		}
		account.Password = strings.TrimRight(string(password), "\r\n")
	}
	switch {
	case account.Username == "" && account.Password == "":
		return nil, nil
	case account.Username == "" || account.Password == "":
		return nil, usage("a registry's account has a name and a password: --username NAME --password-stdin")
	}
	return &account, nil
}

func (a *app) imagePullCommand() *cobra.Command {
	var login registryLogin
	cmd := &cobra.Command{
		Use:   "pull [flags] REFERENCE",
		Short: "Pull an image from a registry and print its ID",
		Long: `Pull an image from a registry and print its ID.

What a tag stands for is asked again, unlike by build, run and create. What was
pulled with --username is for who shows the registry an account that may have it.`,
		Example: `  innerdock image pull debian:bookworm
  innerdock image pull --username me --password-stdin registry.example.com/team/app:1 < password`,
		Args: cobra.ExactArgs(1),
	}
	login.register(cmd.Flags())
	cmd.RunE = a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
		account, err := login.credentials(a)
		if err != nil {
			return err
		}
		return a.withProgress(ctx, func(p *progress) (innerdock.Image, error) {
			return c.BuildImage(ctx, innerdock.ImageDefinition{BaseImage: args[0], Refresh: true, Credentials: account}, p.build)
		})
	})
	return cmd
}

// withProgress does long work on an image and prints the image's ID.
func (a *app) withProgress(ctx context.Context, work func(*progress) (innerdock.Image, error)) error {
	p := a.progress()
	image, err := work(p)
	p.done(err != nil && ctx.Err() == nil)
	if err != nil {
		return err
	}
	return a.showIDs(image, image.ID)
}

func (a *app) imagePushCommand() *cobra.Command {
	var login registryLogin
	cmd := &cobra.Command{
		Use:     "push [flags] IMAGE REFERENCE",
		Short:   "Push an image to a registry",
		Long:    "Push an image to a registry.\n\n" + imageNames,
		Example: `  innerdock image push 3f2a registry.example.com/team/app:1`,
		Args:    cobra.ExactArgs(2),
	}
	login.register(cmd.Flags())
	cmd.RunE = a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
		account, err := login.credentials(a)
		if err != nil {
			return err
		}
		id, err := findImage(ctx, c, args[0])
		if err != nil {
			return err
		}
		return a.withProgress(ctx, func(p *progress) (innerdock.Image, error) {
			return c.PushImage(ctx, id, innerdock.ImagePush{Reference: args[1], Credentials: account}, p.build)
		})
	})
	return cmd
}

func (a *app) imageInspectCommand() *cobra.Command {
	return &cobra.Command{
		Use: "inspect IMAGE", Short: "Show all about an image", Long: "Show all about an image, as JSON unless -o table is given.\n\n" + imageNames, Args: cobra.ExactArgs(1),
		RunE: a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
			id, err := findImage(ctx, c, args[0])
			if err != nil {
				return err
			}
			image, err := c.Image(ctx, id)
			if err != nil {
				return err
			}
			if a.format == "" {
				a.format = formatJSON
			}
			return a.show(image, []string{image.ID}, func() table { return imageTable(image) })
		}),
	}
}

func imageTable(image innerdock.Image) table {
	var t table
	t.add("ID", image.ID)
	t.add("Base", image.Base)
	t.add("Source", image.Source)
	t.add("Size", size(image.Size))
	t.add("Digest", image.Digest)
	t.add("Created", age(image.CreatedAt)+" ago")
	t.add("Used", age(image.UsedAt)+" ago")
	t.add("Entrypoint", orDash(strings.Join(image.Entrypoint, " ")))
	t.add("Command", orDash(strings.Join(image.Cmd, " ")))
	t.add("Directory", orDash(image.WorkingDir))
	for _, key := range slices.Sorted(maps.Keys(image.Env)) {
		t.add("Environment", key+"="+image.Env[key])
	}
	return t
}

func (a *app) imageHistoryCommand() *cobra.Command {
	return &cobra.Command{
		Use: "history IMAGE", Short: "Show how an image came to be", Long: "Show how an image came to be, the last step first.\n\n" + imageNames, Args: cobra.ExactArgs(1),
		RunE: a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
			id, err := findImage(ctx, c, args[0])
			if err != nil {
				return err
			}
			layers, err := c.ImageHistory(ctx, id)
			if err != nil {
				return err
			}
			var digests []string
			t := table{titles: []string{"LAYER", "SIZE", "CREATED BY"}}
			for _, l := range layers {
				digest := "-"
				if l.Digest != "" {
					digest = strings.TrimPrefix(l.Digest, "sha256:")[:12]
					digests = append(digests, l.Digest)
				}
				t.add(digest, size(l.Size), printable(l.CreatedBy))
			}
			return a.show(layers, digests, func() table { return t })
		}),
	}
}

func (a *app) imagePruneCommand() *cobra.Command {
	var what innerdock.ImagePrune
	var unused time.Duration
	var keep string
	var cache bool
	cmd := &cobra.Command{
		Use:   "prune [flags]",
		Short: "Remove images that no sandbox uses",
		Long: `Remove images that no sandbox uses: all of them, or those that the flags name.

What was used in the last ten minutes stays. The server does the same by itself
within its --image-max-age and --image-max-size.

--cache ends your builder with the cache of your builds instead, removes what pip
has downloaded for your images, and no image. The server ends builders by itself, --builder-idle after the last build.`,
		Example: `  innerdock image prune --unused-for 168h
  innerdock image prune --cache
  innerdock image prune --keep 20Gi --dry-run`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().DurationVar(&unused, "unused-for", 0, "those that were not used for this long, such as 168h")
	cmd.Flags().StringVar(&keep, "keep", "", "the least recently used until the rest takes this much, such as 20Gi")
	cmd.Flags().BoolVar(&what.DryRun, "dry-run", false, "only say what would be removed")
	cmd.Flags().BoolVar(&cache, "cache", false, "your builder and the cache of your builds, and no image")
	cmd.MarkFlagsMutuallyExclusive("cache", "unused-for")
	cmd.MarkFlagsMutuallyExclusive("cache", "keep")
	cmd.MarkFlagsMutuallyExclusive("cache", "dry-run")
	cmd.RunE = a.withClient(func(ctx context.Context, c *innerdock.Client, _ []string) error {
		if cache {
			return c.EndBuilder(ctx)
		}
		var err error
		if keep != "" {
			if what.Keep, err = innerdock.ParseQuantity("--keep", keep); err != nil {
				return err
			}
		}
		what.UnusedFor = unused.Seconds()
		pruned, err := c.PruneImages(ctx, what)
		if err != nil {
			return err
		}
		ids := make([]string, len(pruned.Images))
		t := table{titles: []string{"ID", "BASE", "USED"}}
		for i, image := range pruned.Images {
			ids[i] = image.ID
			t.add(image.ID, image.Base, age(image.UsedAt))
		}
		a.progress().say("%s", freed(pruned, what.DryRun))
		return a.show(pruned, ids, func() table { return t })
	})
	return cmd
}

func freed(pruned innerdock.ImagesPruned, dry bool) string {
	verb := "removed"
	if dry {
		verb = "would remove"
	}
	return fmt.Sprintf("%s %d images, %s", verb, len(pruned.Images), size(pruned.Freed))
}

func (a *app) imageImportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE",
		Short: "Import an image from an archive and print its ID",
		Long: `Import an image from an archive and print its ID.

FILE is a tar archive: an OCI layout, or what docker save writes. "-" is standard
input.`,
		Example: `  innerdock image import app.tar
  docker save app | innerdock image import -`,
		Args: cobra.ExactArgs(1),
		RunE: a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
			archive, closeFile, err := a.openArchive(args[0])
			if err != nil {
				return err
			}
			defer closeFile()
			return a.withProgress(ctx, func(p *progress) (innerdock.Image, error) {
				counted := &countedReader{r: archive, p: p}
				return c.ImportImage(ctx, counted)
			})
		}),
	}
}

// openArchive opens a file, or standard input for "-".
func (a *app) openArchive(name string) (archive io.Reader, closeFile func(), err error) {
	if name == "-" {
		return a.Stdin, func() {}, nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, nil, innerdock.Errorf(innerdock.CodeInvalid, "%w", err)
	}
	return file, func() { _ = file.Close() }, nil
}

// countedReader shows how much was read.
type countedReader struct {
	r    io.Reader
	p    *progress
	n    int64
	told time.Time
}

func (c *countedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if now := time.Now(); now.Sub(c.told) > time.Second {
		c.p.say("import: %s", size(c.n))
		c.told = now
	}
	return n, err
}

func (a *app) imageExportCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "export [flags] IMAGE",
		Short: "Export an image as an archive",
		Long: `Export an image as a tar archive to standard output: an OCI layout, which docker
load takes as well.

` + imageNames,
		Example: `  innerdock image export -f app.tar 3f2a
  innerdock image export 3f2a | docker load`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVarP(&output, "file", "f", "", "write this file instead")
	cmd.RunE = a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
		if err := a.refuseTerminal(output); err != nil {
			return err
		}
		id, err := findImage(ctx, c, args[0])
		if err != nil {
			return err
		}
		archive, err := c.ExportImage(ctx, id)
		if err != nil {
			return err
		}
		return a.saveArchive(archive, output)
	})
	return cmd
}

// refuseTerminal keeps an archive off a terminal.
func (a *app) refuseTerminal(output string) error {
	if file, ok := a.Stdout.(*os.File); ok && output == "" {
		if _, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ); err == nil {
			return usage("an archive is nothing for a terminal: give -f FILE, or a pipe")
		}
	}
	return nil
}

// saveArchive writes an archive to a file, or to standard output, and closes it.
func (a *app) saveArchive(archive io.ReadCloser, output string) (err error) {
	defer archive.Close()
	p := a.progress()
	counted := &countedReader{r: archive, p: p}
	if output == "" {
		_, err = io.Copy(a.Stdout, counted)
	} else {
		err = replaceFile(output, counted)
	}
	p.done(err != nil)
	return err
}

// replaceFile writes a file whole or not at all.
func replaceFile(name string, content io.Reader) error {
	part, err := os.CreateTemp(filepath.Dir(name), ".export-")
	if err != nil {
		return innerdock.Errorf(innerdock.CodeInvalid, "%w", err)
	}
	_, err = io.Copy(part, content)
	if err = errors.Join(err, part.Chmod(0o644), part.Close()); err == nil {
		err = os.Rename(part.Name(), name)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(part.Name()))
	}
	return err
}
