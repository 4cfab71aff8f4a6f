package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/test/compat/docker"
	"github.com/innerdock/innerdock/test/compat/dockerimage"
)

// version is a Docker that the checks run with: a way to make an image of it.
type version struct {
	name, what string
	image      func(context.Context, *innerdock.Client) (innerdock.Image, error)
}

// versions are all, the oldest first.
var versions = []version{
	{"20.10", "Debian 12's packages, which have neither Compose nor Buildx", definition(docker.Bookworm)},
	{docker.Default, "Debian 13's packages: what `with_docker()` installs where Docker's own are out of reach", definition(docker.Definition)},
	{"28", "built from its Go modules", built("28", "")},
	{"29", "built from its Go modules, with its default image store, containerd's", built("29", "")},
	{"29-classic", "the same with the image store from before, the graph driver overlay2", built("29", dockerimage.Classic)},
}

func progress(line string) { fmt.Fprintln(os.Stderr, line) }

func definition(def innerdock.ImageDefinition) func(context.Context, *innerdock.Client) (innerdock.Image, error) {
	return func(ctx context.Context, client *innerdock.Client) (innerdock.Image, error) {
		return client.BuildImage(ctx, def, func(_ string, e innerdock.BuildEvent) { progress(e.Message) })
	}
}

// built makes an image of what tools/docker builds.
func built(major, daemonJSON string) func(context.Context, *innerdock.Client) (innerdock.Image, error) {
	return func(ctx context.Context, client *innerdock.Client) (innerdock.Image, error) {
		cmd := exec.CommandContext(ctx, "tools/docker/build.sh", major)
		cmd.Stderr = os.Stderr
		bin, err := cmd.Output()
		if err != nil {
			return innerdock.Image{}, fmt.Errorf("building Docker %s: %w", major, err)
		}
		return dockerimage.Build(ctx, client, strings.TrimSpace(string(bin)), daemonJSON, progress)
	}
}
