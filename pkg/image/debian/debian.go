// Package debian makes base images from Debian's signed packages, for when no
// registry can be reached. For its users they behave like the official images:
// python, python3, python3.11 and pip are there, and pip installs without a
// word about externally managed environments.
package debian

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image/child"
)

// recipe is the version of what this package does with the packages. It is one
// of the inputs that a base is cached by: raise it when that changes.
const recipe = 1

// keyring holds the keys that Debian signs with; the package debian-archive-keyring.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// Base is a base that can be made.
type Base struct {
	Suite  string // bookworm or trixie
	Python string // such as 3.11, or "" for a base without Python
}

// pythons are the versions that Debian has, with their suites.
var pythons = map[string]string{"3.11": "bookworm", "3.13": "trixie"}

// suites are the tags of the official debian image that can be made.
var suites = map[string]string{
	"latest": "bookworm", "bookworm": "bookworm", "12": "bookworm", "trixie": "trixie", "13": "trixie",
}

// Available names what can be made, for messages.
const Available = "python3.11, python3.13, debian:bookworm and debian:trixie"

// Find returns the base that stands for an image of Docker Hub, told by its
// repository (such as library/python) and tag (such as 3.11 or 3.11-slim).
func Find(repository, tag string) (Base, bool) {
	version, variant, _ := strings.Cut(tag, "-")
	var b Base
	switch repository {
	case "library/python":
		b = Base{Suite: pythons[version], Python: version}
	case "library/debian":
		b = Base{Suite: suites[version]}
	}
	if b.Suite == "" {
		return Base{}, false
	}
	switch variant {
	case "", "slim", b.Suite, "slim-" + b.Suite:
		return b, true
	}
	return Base{}, false
}

// Name is the base in words, such as "Debian bookworm with Python 3.11".
func (b Base) Name() string {
	if b.Python == "" {
		return "Debian " + b.Suite
	}
	return "Debian " + b.Suite + " with Python " + b.Python
}

// Cmd is the base's default command, as the official image has it.
func (b Base) Cmd() []string {
	if b.Python != "" {
		return []string{"python3"}
	}
	return []string{"bash"}
}

// Env is the base's environment, KEY=value.
func (b Base) Env() []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if b.Python != "" {
		env = append(env, "LANG=C.UTF-8")
	}
	return env
}

// packages are installed on top of the essential ones and apt.
func (b Base) packages() []string {
	if b.Python == "" {
		return []string{"ca-certificates"}
	}
	return []string{"ca-certificates", "curl", "python3", "python" + b.Python, "python3-pip", "python3-venv", "python-is-python3"}
}

// Provider makes bases on this host.
type Provider struct {
	// CertificateDir holds the certificate authorities, *.crt, that the bases
	// shall trust as the host does: a private package mirror is usually signed by
	// its site's own authority. Usually /usr/local/share/ca-certificates.
	CertificateDir string
}

// Key identifies what Make would make: a hash of its inputs.
func (p Provider) Key(b Base) (string, error) {
	certificates, err := p.certificates()
	if err != nil {
		return "", err
	}
	inputs := struct {
		Recipe       int
		Architecture string
		Suite        string
		Packages     []string
		Certificates []string // hashes
	}{recipe, runtime.GOARCH, b.Suite, b.packages(), nil}
	for _, name := range certificates {
		content, err := os.ReadFile(name)
		if err != nil {
			return "", innerdock.Internal(err, "reading the host's certificate authorities")
		}
		sum := sha256.Sum256(content)
		inputs.Certificates = append(inputs.Certificates, hex.EncodeToString(sum[:]))
	}
	data, err := json.Marshal(inputs)
	if err != nil {
		return "", innerdock.Internal(err, "hashing the base's inputs")
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

func (p Provider) certificates() ([]string, error) {
	names, err := filepath.Glob(filepath.Join(p.CertificateDir, "*.crt"))
	if err != nil {
		return nil, innerdock.Internal(err, "listing the host's certificate authorities")
	}
	slices.Sort(names)
	return names, nil
}

// Make writes the base as an uncompressed tar archive to w. It works in tmp, an
// empty directory, and calls progress with what it is doing. It takes about
// half a minute, and needs root: the packages' maintainer scripts run in a
// chroot on the host, Debian's own signed packages alone.
func (p Provider) Make(ctx context.Context, b Base, tmp string, w io.Writer, progress func(line string)) error {
	if err := check(); err != nil {
		return err
	}
	host, err := readHost(ctx)
	if err != nil {
		return err
	}
	certificates, err := p.certificates()
	if err != nil {
		return err
	}
	messages := &lines{emit: progress, hide: tmp}
	cmd := exec.Command("mmdebstrap", argv(b, host, certificates)...)
	cmd.Env = append(cmd.Environ(), "TMPDIR="+tmp, "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	cmd.Env = append(cmd.Env, host.proxies...)
	cmd.Dir = tmp
	cmd.Stdout = w
	cmd.Stderr = messages
	err = child.Run(ctx, cmd)
	messages.flush()
	if err == nil {
		return nil
	}
	return makeError(ctx, err, b, messages)
}

func makeError(ctx context.Context, err error, b Base, messages *lines) error {
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case messages.contains("No space left on device"):
		return innerdock.Errorf(innerdock.CodeExhausted, "the disk is full; remove images that are not used, or make room in the data directory, and try again")
	case errors.As(err, &exit):
		return innerdock.Errorf(innerdock.CodeUnavailable, "%s cannot be made from packages: mmdebstrap ended with code %d; check that `apt-get update` works on the server. Its last lines:\n%s",
			b.Name(), exit.ExitCode(), messages.last())
	}
	return err // of writing to w, or of starting
}

// check tells which package is missing.
func check() error {
	for tool, pkg := range map[string]string{"mmdebstrap": "mmdebstrap", "apt-config": "apt"} {
		if _, err := exec.LookPath(tool); err != nil {
			return innerdock.Errorf(innerdock.CodeUnsupported, "no registry can be reached, and %s, which makes images from Debian packages, is not installed on the server; run: apt-get install %s debian-archive-keyring", tool, pkg)
		}
	}
	if _, err := os.Stat(keyring); err != nil {
		return innerdock.Errorf(innerdock.CodeUnsupported, "Debian's signing keys are not installed on the server; run: apt-get install debian-archive-keyring")
	}
	return nil
}

// argv is mmdebstrap's command line.
func argv(b Base, host hostConfig, certificates []string) []string {
	args := []string{
		"--mode=root", "--variant=apt", "--format=tar", "--keyring=" + keyring,
		"--include=" + strings.Join(b.packages(), ","),
	}
	for _, opt := range host.options {
		args = append(args, "--aptopt="+opt)
	}
	if len(certificates) > 0 {
		args = append(args,
			"--customize-hook=copy-in "+strings.Join(quoteAll(certificates), " ")+" /usr/local/share/ca-certificates",
			`--customize-hook=chroot "$1" update-ca-certificates`)
	}
	if b.Python != "" {
		lib := "/usr/lib/python" + b.Python
		args = append(args, `--customize-hook=chroot "$1" dpkg-divert --local --rename --divert `+
			lib+"/.EXTERNALLY-MANAGED.debian "+lib+"/EXTERNALLY-MANAGED")
	}
	// mmdebstrap copies these from the host; a sandbox writes its own.
	args = append(args, `--customize-hook=rm -f "$1/etc/resolv.conf" "$1/etc/hostname"`)
	return append(append(args, b.Suite, "-"), host.sources(b.Suite)...)
}

func quoteAll(names []string) []string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
	}
	return quoted
}
