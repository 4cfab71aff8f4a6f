package image_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image"
	"github.com/innerdock/innerdock/pkg/image/imagetest"
)

// TestDebianPython makes Python 3.11 from packages, for real: about half a
// minute the first time on a machine, and then again only if its inputs change.
// The programs that it runs on the host are Debian's own.
func TestDebianPython(t *testing.T) {
	imagetest.NeedTool(t, "mmdebstrap", "mmdebstrap debian-archive-keyring")
	dir := t.TempDir()
	s := newStore(t, image.Config{Dir: dir, DebianCache: imagetest.Cache(t)})
	img := build(t, s, innerdock.ImageDefinition{PythonVersion: "python3.11"})
	if img.Source != "debian" || img.Base != "debian:bookworm" || img.Env["PATH"] == "" || strings.Join(img.Cmd, " ") != "python3" {
		t.Errorf("the image is %+v", img)
	}
	if again := build(t, s, innerdock.ImageDefinition{PythonVersion: "3.11"}); !again.Cached || again.ID != img.ID {
		t.Errorf("the second use made %+v", again)
	}
	wantEmpty(t, dir)

	tree := mounted(t, s.Root(img.ID))
	for _, tc := range []struct{ command, want string }{
		{"python --version; python3 --version; python3.11 --version", "Python 3.11"},
		{"pip --version; pip3 --version; python -m pip --version", "(python 3.11)"},
		{"python -m venv --without-pip /tmp/venv && /tmp/venv/bin/python -c 'import ssl, sqlite3, ctypes; print(1)'", "1"},
		{"pip install --no-index nothing-at-all-such; true", "No matching distribution"}, // and no complaint
		{"test ! -e /etc/resolv.conf && test ! -e /etc/hostname && echo clean", "clean"},
		{"cat /etc/apt/sources.list", "bookworm-security"},
		{"ls /usr/lib/python3/dist-packages/__pycache__ | head -1; python3 -c 'import json; print(json.__cached__)'", ".pyc"},
	} {
		out, err := exec.CommandContext(t.Context(), "chroot", tree, "/bin/sh", "-c", tc.command).CombinedOutput()
		if err != nil || !strings.Contains(string(out), tc.want) || strings.Contains(string(out), "externally") {
			t.Errorf("%s: %v, %s", tc.command, err, out)
		}
	}
	wantAuthorities(t, tree)
	if _, err := os.Lstat(filepath.Join(tree, "dev/null")); err == nil {
		t.Error("the root has a device node")
	}
}

// mounted makes the content of an EROFS file writable: under an overlay where
// the kernel can, else as a copy, which takes longer.
func mounted(t *testing.T, root string) string {
	t.Helper()
	dir := t.TempDir()
	script := `set -e
		mount -t tmpfs tmpfs "$2"; cd "$2"; mkdir lower upper work tree
		mount -t erofs -o loop,ro "$1" lower
		mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay tree`
	out, err := exec.Command("sh", "-c", script, "sh", root, dir).CombinedOutput()
	t.Cleanup(func() {
		for _, sub := range []string{"tree", "lower", ""} {
			_ = exec.Command("umount", filepath.Join(dir, sub)).Run() // it may not have been mounted
		}
	})
	if err != nil {
		t.Logf("no overlay (%v: %s): extracting", err, out)
		return imagetest.Extract(t, root)
	}
	return filepath.Join(dir, "tree")
}

// wantAuthorities checks that the host's certificate authorities are trusted.
func wantAuthorities(t *testing.T, tree string) {
	bundle, err := os.ReadFile(filepath.Join(tree, "etc/ssl/certs/ca-certificates.crt"))
	if err != nil {
		t.Fatal(err)
	}
	own, err := filepath.Glob("/usr/local/share/ca-certificates/*.crt")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range own {
		cert, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(bundle), strings.TrimSpace(string(cert))) {
			t.Errorf("%s is not trusted in the image", name)
		}
	}
}
