package dockerinstall

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
)

// base is a Debian bookworm with Python 3.11, made once on a machine; tests work
// on overlays of it.
func base(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("these tests install packages in a chroot: run them with sudo")
	}
	cache := os.Getenv("INNERDOCK_CACHE")
	if cache == "" {
		home, err := os.UserHomeDir()
		must(t, err)
		cache = filepath.Join(home, ".cache", "innerdock")
	}
	tree := filepath.Join(cache, "test", "dockerinstall-bookworm-2")
	if _, err := os.Stat(tree); err == nil {
		return tree
	}
	must(t, os.MkdirAll(filepath.Dir(tree), 0o755))
	temp, err := os.MkdirTemp(filepath.Dir(tree), ".new-")
	must(t, err)
	defer func() { _ = os.RemoveAll(temp) }()
	run(t, "mmdebstrap", "--mode=root", "--variant=minbase", "--include=ca-certificates,python3",
		"--format=directory", "bookworm", filepath.Join(temp, "tree"))
	if err := os.Rename(filepath.Join(temp, "tree"), tree); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	return tree
}

// root is a writable root directory of one test.
type root struct {
	t         *testing.T
	base, dir string
	env       []string
	changes   string // the overlay's upper directory
}

func newRoot(t *testing.T) *root {
	t.Helper()
	r := &root{t: t, base: base(t), dir: t.TempDir()}
	r.changes = filepath.Join(r.dir, "upper")
	for _, name := range []string{"upper", "work", "root"} {
		must(t, os.Mkdir(filepath.Join(r.dir, name), 0o755))
	}
	resolv, err := os.ReadFile("/etc/resolv.conf")
	must(t, err)
	r.write("etc/resolv.conf", string(resolv))
	return r
}

func (r *root) write(path, content string) {
	r.t.Helper()
	path = filepath.Join(r.changes, path)
	must(r.t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(r.t, os.WriteFile(path, []byte(content), 0o644))
}

// be makes the root another distribution, with the site as its only archive.
func (r *root) be(id, codename string, s *site) {
	r.write("etc/os-release", "ID="+id+"\nVERSION_CODENAME="+codename+"\nPRETTY_NAME='Test "+id+" "+codename+"'\n")
	r.write("etc/apt/keyrings/base.asc", string(s.key()))
	r.write("etc/apt/sources.list", "deb [signed-by=/etc/apt/keyrings/base.asc] "+s.server.URL+"/base "+codename+" main\n")
}

// sh runs a script in the root, in namespaces that end with it, and returns what
// it printed and its exit code.
func (r *root) sh(script string) (string, int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 9*time.Minute)
	defer cancel()
	setup := `set -e
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
mount -t proc proc "$2/root/proc"
exec chroot "$2/root" /bin/sh -c "$3"`
	command := exec.CommandContext(ctx, "unshare", "--mount", "--pid", "--fork", "--kill-child",
		"sh", "-c", setup, "sh", r.base, r.dir, script)
	command.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}, r.env...)
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	return output.String(), command.ProcessState.ExitCode()
}

func (r *root) install(source innerdock.DockerSource) (string, int) {
	r.t.Helper()
	return r.sh(Script(source))
}

// mustInstall installs, and checks what every source promises.
func (r *root) mustInstall(source innerdock.DockerSource) string {
	r.t.Helper()
	output, code := r.install(source)
	if code != 0 {
		r.t.Fatalf("exit code %d:\n%s", code, output)
	}
	check := `set -e
for name in dockerd docker containerd containerd-shim-runc-v2 runc docker-init docker-proxy; do test -x /usr/bin/$name; done
test "$(readlink -f /usr/local/bin/docker-compose)" = /usr/libexec/docker/cli-plugins/docker-compose
docker compose version && docker buildx version && docker-compose version
for tool in iptables ip6tables; do $tool --version | grep legacy; done
test ! -e /started && test ! -e /usr/sbin/policy-rc.d
test -z "$(ls -A /var/lib/apt/lists)" && test -z "$(ls /var/cache/apt/archives/*.deb 2>/dev/null)"
test -z "$(ls /tmp)"
dpkg --audit && apt-get check`
	if state, code := r.sh(check); code != 0 {
		r.t.Fatalf("what it left behind is wrong (exit code %d):\n%s\nit said:\n%s", code, state, output)
	}
	return output
}

// mustFail installs in vain, and checks the words and that nothing is left.
func (r *root) mustFail(source innerdock.DockerSource, words ...string) {
	r.t.Helper()
	output, code := r.install(source)
	if code == 0 {
		r.t.Fatalf("it succeeded:\n%s", output)
	}
	for _, word := range words {
		if !strings.Contains(output, word) {
			r.t.Errorf("it does not say %q:\n%s", word, output)
		}
	}
	check := `! command -v dockerd && ! command -v docker && test ! -e /usr/sbin/policy-rc.d &&
test ! -e /etc/apt/sources.list.d/docker.list && test ! -e /etc/apt/sources.list.d/innerdock-donor.list && test -z "$(ls /tmp)"`
	if state, code := r.sh(check); code != 0 {
		r.t.Errorf("it left something behind:\n%s", state)
	}
}
