package cli

import (
	"context"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/innerdock/innerdock"
)

func (a *app) cpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cp SOURCE DESTINATION",
		Short: "Copy a file into or out of a sandbox",
		Long: `Copy a file into or out of a sandbox. One side is SANDBOX:PATH, the other a local
path or - for standard input or output. A path that ends in / is a directory.
For many files, use tar with exec -i.`,
		Example: `  innerdock cp model.py build:/workspace/
  innerdock cp build:out.csv .
  innerdock cp build:/etc/os-release -`,
		Args: cobra.ExactArgs(2),
		RunE: a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
			fromID, from, fromSandbox := sandboxPath(args[0])
			toID, to, toSandbox := sandboxPath(args[1])
			switch {
			case fromSandbox == toSandbox:
				return usage("exactly one of SOURCE and DESTINATION is SANDBOX:PATH")
			case toSandbox:
				return a.upload(ctx, c, args[0], toID, to)
			default:
				return a.download(ctx, c, fromID, from, args[1])
			}
		}),
	}
}

// sandboxPath takes SANDBOX:PATH apart. What begins like a path is local.
func sandboxPath(arg string) (id, file string, ok bool) {
	id, file, ok = strings.Cut(arg, ":")
	if !ok || id == "" || strings.ContainsAny(id, "/.") {
		return "", arg, false
	}
	return id, file, true
}

func (a *app) upload(ctx context.Context, c *innerdock.Client, local, id, to string) error {
	if local == "-" {
		_, err := c.WriteFile(ctx, id, to, 0o644, a.Stdin)
		return err
	}
	file, err := os.Open(local)
	if err != nil {
		return usage("%w", err)
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return usage("%w", err)
	}
	if !info.Mode().IsRegular() {
		return usage("%s is not a regular file; for a directory: tar c %s | innerdock exec -i %s -- tar x", local, local, id)
	}
	if to == "" || strings.HasSuffix(to, "/") {
		to = path.Join(to, filepath.Base(local))
	}
	_, err = c.WriteFile(ctx, id, to, uint32(info.Mode().Perm()), file)
	return err
}

// download writes beside the destination first, so that a copy that breaks off
// replaces nothing.
func (a *app) download(ctx context.Context, c *innerdock.Client, id, from, local string) error {
	content, err := c.ReadFile(ctx, id, from)
	if err != nil {
		return err
	}
	defer func() { _ = content.Close() }()
	if local == "-" {
		_, err := io.Copy(a.Stdout, content)
		return err
	}
	if info, err := os.Stat(local); err == nil && info.IsDir() {
		local = filepath.Join(local, path.Base(from))
	}
	file, err := os.CreateTemp(filepath.Dir(local), ".innerdock-*")
	if err != nil {
		return usage("%w", err)
	}
	defer func() { _ = os.Remove(file.Name()) }() // nothing is there once it was renamed
	_, err = io.Copy(file, content)
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return usage("copying to %s: %w", local, err)
	}
	if err := os.Chmod(file.Name(), 0o644); err != nil {
		return usage("%w", err)
	}
	if err := os.Rename(file.Name(), local); err != nil {
		return usage("%w", err)
	}
	return nil
}
