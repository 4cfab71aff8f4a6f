// Package imagetest has what tests of images need: a base to run steps on, a
// runner without a sandbox, and the suite that every runner passes.
package imagetest

import (
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image"
	"github.com/innerdock/innerdock/pkg/image/erofs"
)

// Offline is a transport to registries that do not exist: every name is unknown.
type Offline struct{}

// RoundTrip fails as a resolver that knows no names does.
func (Offline) RoundTrip(req *http.Request) (*http.Response, error) {
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: req.URL.Host, IsNotFound: true}}
}

// NeedRoot fails the test when it does not run as root.
func NeedRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: run it with sudo")
	}
}

// NeedTool fails the test when a program is missing.
func NeedTool(t *testing.T, name, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%s is missing: run apt-get install %s", name, pkg)
	}
}

// Cache is where bases that take long to make are kept from test to test:
// $INNERDOCK_CACHE/images/debian, by default in ~/.cache/innerdock, which the
// servers of this checkout share.
func Cache(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("INNERDOCK_CACHE")
	if dir == "" {
		home, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(home, "innerdock")
	}
	return filepath.Join(dir, "images", "debian")
}

// Debian builds an image of Debian bookworm in a store that lasts as long as
// the test. The first time on a machine takes about half a minute.
func Debian(t *testing.T) (*image.Store, innerdock.Image) {
	t.Helper()
	NeedRoot(t)
	store, err := image.Open(image.Config{Dir: t.TempDir(), DebianCache: Cache(t), Transport: Offline{}})
	if err != nil {
		t.Fatal(err)
	}
	img, err := store.Build(t.Context(), innerdock.ImageDefinition{BaseImage: "debian:bookworm"}, func(event string, e innerdock.BuildEvent) {
		t.Logf("%s: %s: %s", event, e.Step, e.Message)
	})
	if err != nil {
		t.Fatal(err)
	}
	return store, img
}

// SmallRoot makes an EROFS file that has a few files of Debian, and no programs.
func SmallRoot(t *testing.T) string {
	t.Helper()
	NeedTool(t, "mkfs.erofs", "erofs-utils")
	dir := t.TempDir()
	for _, name := range []string{
		"etc/debian_version", "etc/issue", "etc/issue.net", "etc/hosts", "etc/apt/sources.list",
		"etc/cron.daily/dpkg", "etc/skel/.bashrc", "usr/share/base-files/profile", "usr/share/common-licenses/GPL-3",
		"opt/", "srv/", "run/", "tmp/", "var/lib/",
	} {
		path := filepath.Join(dir, "tree", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(path, []byte(name+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root := filepath.Join(dir, "root.erofs")
	if err := erofs.Make(t.Context(), filepath.Join(dir, "tree"), root); err != nil {
		t.Fatal(err)
	}
	return root
}

// Extract writes the content of an EROFS file into a new directory.
func Extract(t *testing.T, root string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	if err := extract(root, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func extract(root, dir string) error {
	out, err := exec.Command("fsck.erofs", "--extract="+dir, "--preserve", root).CombinedOutput()
	if err != nil {
		return errors.New("fsck.erofs (apt-get install erofs-utils): " + err.Error() + ": " + string(out))
	}
	return nil
}
