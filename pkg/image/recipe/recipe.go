// Package recipe holds the shell scripts that give an image another Python or
// micromamba. They run as root inside a sandbox, never on the host.
package recipe

import (
	_ "embed"
	"strings"
)

//go:embed python.sh
var python string

//go:embed micromamba.sh
var micromamba string

// Prefix is where micromamba installs packages: their programs are in its bin.
const Prefix = "/opt/micromamba"

// Python returns a script for /bin/sh that makes python3 and pip those of a
// version such as 3.12, from the packages of the image's distribution.
func Python(version string) string {
	return "#!/bin/sh\nversion=" + Quote(version) + "\n" + python
}

// Micromamba returns a script for /bin/sh that installs micromamba if it is not
// there, and then packages, if any, from channels; without any, conda-forge.
//
// MICROMAMBA_URL in its environment names another place of the program's archive.
func Micromamba(packages, channels []string) string {
	if len(channels) == 0 {
		channels = []string{"conda-forge"}
	}
	var b strings.Builder
	b.WriteString("#!/bin/sh\nprefix=" + Quote(Prefix) + "\nset --")
	for _, c := range channels {
		b.WriteString(" --channel " + Quote(c))
	}
	b.WriteString("\nchannels=$#\nset -- \"$@\"")
	for _, p := range packages {
		b.WriteString(" " + Quote(p))
	}
	b.WriteString("\n" + micromamba)
	return b.String()
}

// Quote makes one word of s for a shell.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
