package kept

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// docker is a data directory with three layers on each other, whose names sort the
// other way round, and a fourth one on the first.
func docker(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("overlay's marks need root: run it with sudo")
	}
	data := t.TempDir()
	for name, layer := range map[string]struct{ parent, script string }{
		"c": {"", `mkdir -p sub/deep hidden gone; echo one > sub/a; ln sub/a sub/twin; ln -s a sub/link; echo old > hidden/old
			echo 1 > gone/x; echo f > removed; chmod 4755 sub/a; chown 7:8 sub/a; touch -d @1000000000 sub/a sub; mkdir turns; echo t > turns/t; echo file > becomes`},
		"b": {"c", `mkdir -p sub hidden; echo two > sub/b; mknod removed c 0 0; mknod gone c 0 0; echo new > hidden/new
			echo now a file > turns; mkdir becomes; echo d > becomes/d; chmod 700 sub`},
		"a": {"b", `mkdir -p sub/deep gone; echo three > sub/deep/c; echo again > removed; echo back > gone/y; mkdir hidden; echo newer > hidden/newer`},
		"d": {"c", `mkdir sub; echo other > sub/a`},
	} {
		chain := filepath.Join(data, layerList, "chain-of-"+name)
		diff := filepath.Join(data, layers, name, "diff")
		must(t, os.MkdirAll(chain, 0o700), os.MkdirAll(diff, 0o755), os.MkdirAll(filepath.Join(data, layers, links), 0o700),
			write(filepath.Join(chain, "cache-id"), name), write(filepath.Join(chain, tarSplit), "split of "+name),
			write(filepath.Join(data, layers, name, "link"), "SHORT"+name),
			os.Symlink(filepath.Join("..", name, "diff"), filepath.Join(data, layers, links, "SHORT"+name)))
		if layer.parent != "" {
			must(t, write(filepath.Join(chain, "parent"), "sha256:chain-of-"+layer.parent))
		}
		shell(t, diff, layer.script)
		if name == "b" {
			must(t, unix.Lsetxattr(filepath.Join(diff, "hidden"), opaque, []byte("y"), 0))
		}
	}
	must(t, write(filepath.Join(data, lists, "repositories.json"), `{"Repositories":{}}`))
	return data
}

// list describes all that is in a directory but for the times of directories that
// overlay merges, and the sizes of directories.
const list = `find . -printf '%p %y %m %U:%G %l\n' | sort; find . -type f -printf '%p %T@ %s\n' -exec cat {} + | sort; find . -type f -links 2 | sort`

// Each layer that is kept is what overlay shows of it and those below it.
func TestKeptLayersAreWhatOverlayShows(t *testing.T) {
	data, dir := docker(t), t.TempDir()
	below := map[string]string{"c": "c", "b": "b c", "a": "a b c", "d": "d c"}
	want := map[string]string{}
	for name, stack := range below {
		var lower []string
		for l := range strings.FieldsSeq(stack) {
			lower = append(lower, filepath.Join(data, layers, l, "diff"))
		}
		want[name] = shell(t, overlay(t, append(lower, t.TempDir())), list)
	}
	unmount(t)
	must(t, Keep(data, dir))
	for name := range below {
		got := shell(t, filepath.Join(dir, layers, name, "diff"), list)
		if stripLinks(got) != stripLinks(want[name]) {
			t.Errorf("layer %s is\n%s\nand should be\n%s", name, got, want[name])
		}
	}
	inode := func(layer, file string) uint64 {
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(dir, layers, layer, "diff", file), &st))
		return st.Ino
	}
	if inode("a", "sub/b") != inode("b", "sub/b") || inode("a", "sub/twin") != inode("c", "sub/a") {
		t.Error("layers do not share their files")
	}
}

// A Docker that is lent images has small files of its own and symlinks to the rest;
// what it does to them stays with it. One that has images is lent none.
func TestLend(t *testing.T) {
	dir, own := t.TempDir(), t.TempDir()
	must(t, Lend(dir, own)) // nothing is kept
	if entries, err := os.ReadDir(own); err != nil || len(entries) > 0 {
		t.Fatalf("there are %v, %v", entries, err)
	}
	must(t, Keep(docker(t), dir))
	kept := shell(t, dir, list)
	must(t, os.MkdirAll(filepath.Join(own, layers, "a"), 0o700), Lend(dir, own)) // it was killed over it before
	for at, want := range map[string]string{
		"overlay2/l/SHORTa/sub/deep/c": "three\n", "overlay2/a/link": "SHORTa",
		layerList + "/chain-of-a/tar-split.json.gz": "split of a", layerList + "/chain-of-a/cache-id": "a", lists + "/repositories.json": `{"Repositories":{}}`,
	} {
		if got, err := os.ReadFile(filepath.Join(own, at)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v", at, got, err)
		}
	}
	must(t, os.RemoveAll(filepath.Join(own, layers, "a")), os.RemoveAll(filepath.Join(own, layerList, "chain-of-a")),
		write(filepath.Join(own, lists, "repositories.json"), "mine"), Lend(dir, own))
	if got, err := os.ReadFile(filepath.Join(own, lists, "repositories.json")); err != nil || string(got) != "mine" {
		t.Errorf("it was lent images again: %q, %v", got, err)
	}
	if now := shell(t, dir, list); now != kept {
		t.Errorf("what is kept became\n%s", now)
	}
}

func TestAnotherStoreIsNotKept(t *testing.T) {
	if err := Keep(t.TempDir(), t.TempDir()); !errors.Is(err, ErrStore) {
		t.Errorf("Keep: %v", err)
	}
}

var mounted []string

func overlay(t *testing.T, lower []string) string {
	t.Helper()
	at := t.TempDir()
	if err := unix.Mount("overlay", at, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(lower, ":")); err != nil {
		t.Fatal(err)
	}
	mounted = append(mounted, at)
	t.Cleanup(func() { unmount(t) })
	return at
}

func unmount(t *testing.T) {
	t.Helper()
	for _, at := range mounted {
		must(t, unix.Unmount(at, 0))
	}
	mounted = nil
}

// stripLinks leaves out the last part: overlay counts links otherwise.
func stripLinks(listing string) string {
	var kept []string
	for line := range strings.Lines(listing) {
		if len(strings.Fields(line)) > 1 || !strings.HasPrefix(line, "./") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

func shell(t *testing.T, dir, script string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func write(path, content string) error { return os.WriteFile(path, []byte(content), 0o600) }

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
