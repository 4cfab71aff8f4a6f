package image

import (
	"context"
	"fmt"
	"io"
)

// Builder builds Dockerfiles in sandboxes of its own: one for each tenant, whose
// cache is in it.
type Builder interface {
	// BuildDockerfile builds b for a tenant. Each line of the output, at most 4 KiB
	// of it and without its newline, goes to output, which is not called
	// concurrently. When the build is done, the image is handed to take as the
	// archive that `docker save` writes. Nothing of b is left in the sandbox, on
	// whatever end, but what BuildKit caches.
	//
	// A Dockerfile that cannot be built is a *DockerfileError.
	BuildDockerfile(ctx context.Context, tenant string, b DockerfileBuild, output func(line string), take func(archive io.Reader) error) error
}

// DockerfileBuild is one build of a Dockerfile.
type DockerfileBuild struct {
	Text     string
	Target   string            // "" is the last stage
	Args     map[string]string // of ARG
	Secrets  map[string]string // by ID
	Accounts []byte            // Docker's config.json with those at the bases' registries; nil: none
	Context  io.Reader         // a tar archive; nil: no files
	Pull     bool              // ask registries again what tags stand for

	// Sandbox returns the image that builders are made from, which has Docker. It is
	// called when the tenant has no builder.
	Sandbox func(ctx context.Context) (id string, err error)
}

// DockerfileError says that the build ended with an exit code; why is in its output.
type DockerfileError struct {
	ExitCode int
}

func (e *DockerfileError) Error() string {
	return fmt.Sprintf("the build ended with code %d", e.ExitCode)
}
