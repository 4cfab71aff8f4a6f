package seed

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image/child"
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
	args = append(append(args, options...), suite, target)
	args = append(args, sources(ctx)...)
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

// sources are sources.list lines for the mirrors that the host itself uses; none
// (mmdebstrap then uses Debian's own) if the host has no Debian sources.
func sources(ctx context.Context) []string {
	targets, err := exec.CommandContext(ctx, "apt-get", "indextargets",
		"--format", "$(LABEL) $(COMPONENT) $(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		return nil
	}
	var mirror, security string
	for line := range strings.Lines(string(targets)) {
		label, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		component, uri, _ := strings.Cut(rest, " ")
		if component != "main" || !strings.HasPrefix(uri, "http") || strings.Contains(uri, "@") {
			continue
		}
		switch label {
		case "Debian":
			mirror = uri
		case "Debian-Security":
			security = uri
		}
	}
	if mirror == "" {
		return nil
	}
	lines := []string{"deb " + mirror + " " + suite + " main", "deb " + mirror + " " + suite + "-updates main"}
	if security != "" {
		lines = append(lines, "deb "+security+" "+suite+"-security main")
	}
	return lines
}
