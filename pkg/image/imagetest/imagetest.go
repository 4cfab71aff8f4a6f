// Package imagetest has what tests of images need: a base to run steps on, a
// runner without a sandbox, and the suite that every runner passes.
package imagetest

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image"
	"github.com/innerdock/innerdock/pkg/image/unpack"
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
	var layer bytes.Buffer
	tw := tar.NewWriter(&layer)
	if err := errors.Join(writeTree(tw, filepath.Join(dir, "tree")), tw.Close()); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "root.erofs")
	MakeRoot(t, root, layer.Bytes())
	return root
}

// MakeRoot makes an EROFS file of layers that are not compressed.
func MakeRoot(t *testing.T, root string, layers ...[]byte) {
	t.Helper()
	out, err := os.OpenFile(root, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	image := unpack.New(out, unpack.DefaultLimits())
	for _, layer := range layers {
		if err := image.Apply(t.Context(), bytes.NewReader(layer)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(image.Finish(), out.Close()); err != nil {
		t.Fatal(err)
	}
}

// writeTree writes a directory as a layer.
func writeTree(tw *tar.Writer, dir string) error {
	names := map[uint64]string{} // of inodes that were written
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		link := ""
		if info.Mode()&fs.ModeSymlink != 0 {
			if link, err = os.Readlink(path); err != nil {
				return err
			}
		}
		hdr, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		hdr.Name, hdr.Format = "./"+strings.TrimPrefix(strings.TrimPrefix(path, dir), "/"), tar.FormatPAX
		if info.Mode().IsRegular() {
			ino := info.Sys().(*syscall.Stat_t).Ino
			if first, ok := names[ino]; ok {
				hdr.Typeflag, hdr.Linkname, hdr.Size = tar.TypeLink, first, 0
			} else {
				names[ino] = hdr.Name
			}
		}
		if err := tw.WriteHeader(hdr); err != nil || hdr.Typeflag != tar.TypeReg {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		_, err = tw.Write(content)
		return err
	})
}
