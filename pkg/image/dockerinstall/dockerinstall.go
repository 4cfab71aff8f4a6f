// Package dockerinstall holds the shell script that installs Docker in an image:
// Engine, CLI, Compose plugin and Buildx plugin. It runs as root inside a
// sandbox, on a Debian or Ubuntu base, and never on the host.
package dockerinstall

import (
	_ "embed"
	"strings"

	"github.com/innerdock/innerdock"
)

//go:embed install.sh
var body string

// Script returns a script for /bin/sh, to be run as root in the image, that
// installs Docker from source; "" means auto. It takes no arguments, reads
// nothing from standard input, prints lines for people, and exits 0 only if
// dockerd, docker, `docker compose` and `docker buildx` answered. It also runs
// with `sh -c`.
//
// DOCKER_CE_URL in its environment names a mirror of Docker's repository, in
// place of https://download.docker.com.
func Script(source innerdock.DockerSource) string {
	if source == "" {
		source = innerdock.DockerSourceAuto
	}
	quoted := "'" + strings.ReplaceAll(string(source), "'", `'\''`) + "'"
	return "#!/bin/sh\nsource=" + quoted + "\n" + body
}
