package seed

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image/child"
	"github.com/innerdock/innerdock/pkg/image/debian"
)

// suite is the Debian release that the images are made from.
const suite = "trixie"

const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// fromPackages writes what mmdebstrap makes, with the given options, to the tar
// archive target. It works in the directory work.
func fromPackages(ctx context.Context, work, target string, options ...string) error {
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return innerdock.Errorf(innerdock.CodeUnsupported,
			"mmdebstrap, which makes images from Debian's packages, is not installed on the server; run: apt-get install mmdebstrap debian-archive-keyring")
	}
	args := []string{"--mode=root", "--format=tar"}
	if _, err := os.Stat(keyring); err == nil {
		args = append(args, "--keyring="+keyring)
	}
	sources, err := debian.Sources(ctx, suite)
	if err != nil {
		return err
	}
	args = append(append(args, options...), suite, target)
	args = append(args, sources...)
	cmd := exec.Command("mmdebstrap", args...)
	cmd.Env = append(cmd.Environ(), "TMPDIR="+work, "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	cmd.Dir = work
	output, err := child.Output(ctx, cmd)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &exit):
		return innerdock.Errorf(innerdock.CodeUnavailable,
			"an image could not be made from Debian's packages; check that `apt-get update` works on the server. mmdebstrap says:\n%s", lastLines(output, 10))
	}
	return innerdock.Internal(err, "running mmdebstrap")
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
