package dockerinstall

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// pkg is a package for the test's archives: files are shell scripts.
type pkg struct {
	name, version string
	depends       string
	files         map[string]string
	postinst      string
}

// answering is a program that prints one line whatever it is asked.
func answering(line string) string { return "#!/bin/sh\necho '" + line + "'\n" }

const fakeDocker = `#!/bin/sh
case $1 in
compose | buildx) tool=$1; shift; exec /usr/libexec/docker/cli-plugins/docker-$tool "$@" ;;
*) echo 'Docker version 99.1, build test' ;;
esac
`

// fakeIptables is like the real package, which prefers nf_tables.
var fakeIptables = pkg{
	name: "iptables", version: "1.8.9", files: map[string]string{
		"usr/sbin/iptables-legacy":  answering("iptables v1.8.9 (legacy)"),
		"usr/sbin/iptables-nft":     answering("iptables v1.8.9 (nf_tables)"),
		"usr/sbin/ip6tables-legacy": answering("ip6tables v1.8.9 (legacy)"),
		"usr/sbin/ip6tables-nft":    answering("ip6tables v1.8.9 (nf_tables)"),
	},
	postinst: `for kind in legacy:10 nft:20; do for tool in iptables ip6tables; do
update-alternatives --install /usr/sbin/$tool $tool /usr/sbin/$tool-${kind%:*} ${kind#*:}
done; done`,
}

// startsService fails the test, by its file, if a package starts its service.
const startsService = `invoke-rc.d docker start || true`

// commonPackages are what every source needs of the base's own archive; procps has
// the ps of docker top.
func commonPackages() []pkg {
	return []pkg{fakeIptables, {name: "procps", version: "4"}, {name: "xz-utils", version: "5.4"}}
}

// cePackages are Docker's own packages, with their files where Docker has them.
func cePackages() []pkg {
	return []pkg{
		{name: "docker-ce", version: "99.1", depends: "containerd.io, docker-ce-cli, iptables", postinst: startsService,
			files: map[string]string{
				"etc/init.d/docker":              "#!/bin/sh\ntouch /started\n",
				"usr/bin/dockerd":                answering("Docker version 99.1, build test"),
				"usr/bin/docker-proxy":           answering("docker-proxy"),
				"usr/libexec/docker/docker-init": answering("tini"),
			}},
		{name: "docker-ce-cli", version: "99.1", files: map[string]string{"usr/bin/docker": fakeDocker}},
		{name: "containerd.io", version: "99.1", files: map[string]string{
			"usr/bin/containerd": answering("containerd"), "usr/bin/runc": answering("runc"),
			"usr/bin/containerd-shim-runc-v2": answering("shim"),
		}},
		{name: "docker-buildx-plugin", version: "99.1", files: map[string]string{
			"usr/libexec/docker/cli-plugins/docker-buildx": answering("github.com/docker/buildx 99.1")}},
		{name: "docker-compose-plugin", version: "99.1", files: map[string]string{
			"usr/libexec/docker/cli-plugins/docker-compose": answering("Docker Compose version v99.1")}},
	}
}

// distroPackages are a distribution's own, named and laid out as Debian has them.
func distroPackages(compose string, cli bool) []pkg {
	packages := []pkg{
		{name: "docker.io", version: "26", depends: "iptables", postinst: startsService, files: map[string]string{
			"etc/init.d/docker":     "#!/bin/sh\ntouch /started\n",
			"usr/sbin/dockerd":      answering("Docker version 26, build distro"),
			"usr/sbin/docker-proxy": answering("docker-proxy"), "usr/bin/docker-init": answering("tini"),
			"usr/bin/containerd": answering("containerd"), "usr/sbin/runc": answering("runc"),
			"usr/bin/containerd-shim-runc-v2": answering("shim"),
		}},
		{name: compose, version: "2.26", files: map[string]string{
			"usr/libexec/docker/cli-plugins/docker-compose": answering("Docker Compose version 2.26")}},
		{name: "docker-buildx", version: "0.13", files: map[string]string{
			"usr/libexec/docker/cli-plugins/docker-buildx": answering("github.com/docker/buildx 0.13")}},
	}
	if cli {
		return append(packages, pkg{name: "docker-cli", version: "26", files: map[string]string{"usr/bin/docker": fakeDocker}})
	}
	packages[0].files["usr/bin/docker"] = fakeDocker
	return packages
}

// site serves archives on the loopback address, signed with a key of its own.
type site struct {
	t      *testing.T
	dir    string
	home   string // of gpg
	server *httptest.Server
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir()}
	s.home = newKey(t)
	s.server = httptest.NewServer(http.FileServer(http.Dir(s.dir)))
	t.Cleanup(s.server.Close)
	return s
}

// newKey makes a signing key, in a home directory of gpg of its own.
func newKey(t *testing.T) string {
	t.Helper()
	home, err := os.MkdirTemp("", "gpg") // short: gpg's sockets are in it
	must(t, err)
	t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run() // it may not run
		_ = os.RemoveAll(home)
	})
	run(t, "gpg", "--homedir", home, "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", "Test Archive <test@localhost>", "rsa2048", "sign")
	return home
}

func (s *site) gpg(args ...string) []byte {
	s.t.Helper()
	return run(s.t, "gpg", append([]string{"--homedir", s.home, "--batch", "--quiet"}, args...)...)
}

func (s *site) key() []byte { return s.gpg("--armor", "--export") }

// write makes a file of the site.
func (s *site) write(path string, content []byte) {
	s.t.Helper()
	path = filepath.Join(s.dir, path)
	must(s.t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(s.t, os.WriteFile(path, content, 0o644))
}

// archive makes an apt archive below base, of one suite and component.
func (s *site) archive(base, suite, component string, packages []pkg) {
	s.t.Helper()
	var index bytes.Buffer
	for _, p := range packages {
		deb := buildDeb(s.t, p)
		path := "pool/" + p.name + "_" + suite + ".deb"
		s.write(filepath.Join(base, path), deb)
		fmt.Fprintf(&index, "%sFilename: %s\nSize: %d\nSHA256: %x\n\n", p.control(), path, len(deb), sha256.Sum256(deb))
	}
	dists := filepath.Join(base, "dists", suite)
	path := component + "/binary-" + runtime.GOARCH + "/Packages"
	s.write(filepath.Join(dists, path), index.Bytes())
	release := fmt.Sprintf("Origin: Test\nLabel: Test\nSuite: %[1]s\nCodename: %[1]s\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nArchitectures: %[2]s\nComponents: %[3]s\nSHA256:\n %[4]x %[5]d %[6]s\n",
		suite, runtime.GOARCH, component, sha256.Sum256(index.Bytes()), index.Len(), path)
	plain := filepath.Join(s.t.TempDir(), "Release")
	must(s.t, os.WriteFile(plain, []byte(release), 0o644))
	s.write(filepath.Join(dists, "InRelease"), s.gpg("--clear-sign", "--output", "-", plain))
}

// control is the package's stanza, of its control file and of the index.
func (p pkg) control() string {
	text := "Package: " + p.name + "\nVersion: " + p.version + "\nArchitecture: all\nMaintainer: Test <test@localhost>\n"
	if p.depends != "" {
		text += "Depends: " + p.depends + "\n"
	}
	return text + "Description: made by a test\n"
}

func buildDeb(t *testing.T, p pkg) []byte {
	t.Helper()
	tree := t.TempDir()
	must(t, os.Chmod(tree, 0o755))
	write := func(path, content string) {
		path = filepath.Join(tree, path)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(content), 0o755))
	}
	write("DEBIAN/control", p.control())
	if p.postinst != "" {
		write("DEBIAN/postinst", "#!/bin/sh\nset -e\n"+p.postinst+"\n")
	}
	for path, content := range p.files {
		write(path, content)
	}
	deb := filepath.Join(t.TempDir(), "package.deb")
	run(t, "dpkg-deb", "--root-owner-group", "-Zgzip", "--build", tree, deb)
	content, err := os.ReadFile(deb)
	must(t, err)
	return content
}

// run runs one of the tools that the tests need, and returns what it prints.
func run(t *testing.T, tool string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		t.Fatalf("%s is not installed; run: apt-get install mmdebstrap gnupg dpkg", tool)
	}
	var messages bytes.Buffer
	command := exec.Command(tool, args...)
	command.Stderr = &messages
	output, err := command.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", tool, strings.Join(args, " "), err, messages.String())
	}
	return output
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
