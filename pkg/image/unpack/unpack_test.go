package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	reader "github.com/erofs/go-erofs"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/innerdock/innerdock"
)

// entry builds headers for the archives of tests.
type entry struct {
	tar.Header
	body string
}

func dir(name string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}}
}
func file(name string) entry { return text(name, "new "+name) }
func text(name, body string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(body))}, body}
}

func link(name, target string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

func hard(name, target string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}}
}

func node(kind byte, name string) entry {
	return entry{Header: tar.Header{Typeflag: kind, Name: name, Mode: 0o666, Devmajor: 10, Devminor: 203}}
}

func xattr(e entry, name, value string) entry {
	e.PAXRecords = map[string]string{"SCHILY.xattr." + name: value}
	return e
}

func archive(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, e := range entries {
		if err := tw.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// ground is a directory with canaries around the one that the image is made in.
type ground struct{ top, tree, image, layers string }

const canary = "untouched"

func newGround(t testing.TB) ground {
	t.Helper()
	top := t.TempDir()
	g := ground{top: top, tree: filepath.Join(top, "a", "b", "tree"), layers: t.TempDir()}
	g.image = filepath.Join(g.tree, "root.erofs")
	if err := os.MkdirAll(g.tree, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"canary", "a/canary", "a/b/canary", "a/b/tree2"} {
		if err := os.WriteFile(filepath.Join(top, name), []byte(canary), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// check fails the test if anything beside the tree has changed.
func (g ground) check(t testing.TB) {
	t.Helper()
	var found []string
	err := filepath.WalkDir(g.top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == g.tree {
			return fs.SkipDir
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(path, g.top)
		if !d.IsDir() {
			content, err := os.ReadFile(path)
			st := info.Sys().(*syscall.Stat_t)
			if err != nil || string(content) != canary || info.Mode() != 0o600 || st.Nlink != 1 || int(st.Uid) != os.Geteuid() {
				t.Errorf("%s was changed: %v %q %d links", rel, info.Mode(), content, st.Nlink)
			}
		}
		found = append(found, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"", "/a", "/a/b", "/a/b/canary", "/a/b/tree2", "/a/canary", "/canary"}; !slices.Equal(found, want) {
		t.Errorf("beside the tree there is %q, want %q", found, want)
	}
}

// unpack merges layers in this process.
func (g ground) unpack(ctx context.Context, limits Limits, layers ...[]byte) error {
	out, err := os.OpenFile(g.image, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	image := New(out, limits)
	for _, l := range layers {
		if err := image.Apply(ctx, bytes.NewReader(l)); err != nil {
			return err
		}
	}
	return image.Finish()
}

// process merges layers in a process of their own.
func (g ground) process(ctx context.Context, limits Limits, layers ...[]byte) (Result, error) {
	var all []Layer
	for _, data := range layers {
		l, err := g.layer(data, digest(data))
		if err != nil {
			return Result{}, err
		}
		all = append(all, l)
	}
	return g.processLayers(ctx, limits, all...)
}

func (g ground) layer(blob []byte, diffID string) (Layer, error) {
	f, err := os.CreateTemp(g.layers, "")
	if err != nil {
		return Layer{}, err
	}
	_, err = f.Write(blob)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	return Layer{Blob: f, DiffID: diffID}, err
}

func (g ground) processLayers(ctx context.Context, limits Limits, layers ...Layer) (Result, error) {
	out, err := os.OpenFile(g.image, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return Result{}, err
	}
	defer out.Close()
	return Process(ctx, out, limits, func(context.Context) (*Layer, error) {
		if len(layers) == 0 {
			return nil, nil
		}
		l := layers[0]
		layers = layers[1:]
		return &l, nil
	})
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// extract writes the image's content into a new directory, by a program of others.
func (g ground) extract(t testing.TB) string {
	t.Helper()
	tree := filepath.Join(t.TempDir(), "tree")
	out, err := exec.Command("fsck.erofs", "--extract="+tree, "--preserve", g.image).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("rror")) {
		t.Fatalf("fsck.erofs (apt-get install erofs-utils): %v: %s", err, out)
	}
	return tree
}

// listing is the tree as lines of "path type", sorted; symlinks with target,
// files with content.
func (g ground) listing(t *testing.T) []string {
	t.Helper()
	var lines []string
	tree := g.extract(t)
	err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == tree {
			return err
		}
		line := strings.TrimPrefix(path, tree+"/")
		switch d.Type() {
		case 0:
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += "=" + string(content)
		case fs.ModeDir:
			line += "/"
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += "->" + target
		default:
			line += special
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

const special = " (special file)"

// TestHostileLayers unpacks archives that try to get out, and looks at what is
// around the tree afterwards. code is that of the expected error; "" means that
// the archive is harmless when it is taken inside the tree.
func TestHostileLayers(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, tc := range []struct {
		name   string
		code   innerdock.Code
		layers [][]entry
	}{
		{"dot-dot", innerdock.CodeInvalid, [][]entry{{file("../canary")}}},
		{"dot-dot deep", innerdock.CodeInvalid, [][]entry{{file("x/../../../../canary")}}},
		{"dot-dot in the middle, staying inside", innerdock.CodeInvalid, [][]entry{{file("x/../y")}}},
		{"dot-dot directory", innerdock.CodeInvalid, [][]entry{{dir("..")}}},
		{"dot-dot directory with a slash", innerdock.CodeInvalid, [][]entry{{dir("../")}}},
		{"dot-dot symlink name", innerdock.CodeInvalid, [][]entry{{link("../evil", "x")}}},
		{"dot-dot whiteout", innerdock.CodeInvalid, [][]entry{{file("../.wh.canary")}}},
		{"dot-dot opaque", innerdock.CodeInvalid, [][]entry{{file("../.wh..wh..opq")}}},
		{"dot-dot device", innerdock.CodeInvalid, [][]entry{{node(tar.TypeChar, "../cuse")}}},
		{"whiteout of dot-dot", innerdock.CodeInvalid, [][]entry{{file("x/.wh...")}}},
		{"whiteout of dot", innerdock.CodeInvalid, [][]entry{{file("x/.wh..")}}},
		{"whiteout of nothing", innerdock.CodeInvalid, [][]entry{{file("x/.wh.")}}},
		{"absolute name", "", [][]entry{{file("/canary")}}},
		{"absolute host path", "", [][]entry{{file("/etc/passwd")}}},
		{"symlink out, file through it", "", [][]entry{{link("up", "../../.."), file("up/canary")}}},
		{"absolute symlink, file through it", "", [][]entry{{link("x", "/etc"), file("x/innerdock-canary")}}},
		{"symlink out, in the next layer a file through it", "", [][]entry{{link("up", "../..")}, {file("up/canary")}}},
		{"chained symlinks", "", [][]entry{{dir("d"), link("d/one", ".."), link("d/two", "one/.."), link("d/three", "two/../.."), file("d/three/canary")}}},
		{"symlink to /proc/self/root", "", [][]entry{{link("p", "/proc/self/root"), file("p/canary")}}},
		{"symlink to /proc/self/cwd", "", [][]entry{{link("p", "/proc/self/cwd/.."), file("p/canary")}}},
		{"symlink /dev, device through it", "", [][]entry{{link("d", "/dev"), node(tar.TypeChar, "d/cuse")}}},
		{"file over a symlink out", "", [][]entry{{link("c", "../canary"), file("c")}}},
		{"directory over a symlink out", "", [][]entry{{link("c", "../.."), {Header: tar.Header{Typeflag: tar.TypeDir, Name: "c", Mode: 0o777, Uid: 12345}}}}},
		{"mode of a symlink's target", "", [][]entry{{{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "c", Linkname: "../canary", Mode: 0o4777, Uid: 12345}}}}},
		{"whiteout through a symlink", "", [][]entry{{link("up", "..")}, {file("up/.wh.canary")}}},
		{"opaque through a symlink", "", [][]entry{{link("up", "..")}, {file("up/.wh..wh..opq")}}},
		{"opaque on a symlink to the top", "", [][]entry{{link("up", "/../../../..")}, {file("up/.wh..wh..opq")}}},
		{"whiteout of a symlink out", "", [][]entry{{link("c", "../canary")}, {file(".wh.c")}}},
		{"hard link out", innerdock.CodeInvalid, [][]entry{{hard("x", "../canary")}}},
		{"absolute hard link", innerdock.CodeInvalid, [][]entry{{hard("x", "/etc/passwd")}}},
		{"hard link through a symlink out", innerdock.CodeInvalid, [][]entry{{link("up", ".."), hard("x", "up/canary")}}},
		{"hard link to a symlink out, then written", "", [][]entry{{link("c", "../canary"), hard("x", "c"), file("x")}}},
		{"hard link to a directory", innerdock.CodeInvalid, [][]entry{{dir("d"), hard("x", "d")}}},
		{"hard link over its target's directory", innerdock.CodeInvalid, [][]entry{{file("d/f"), hard("d", "d/f")}}},
		{"hard link to nothing", innerdock.CodeInvalid, [][]entry{{hard("x", "nothing")}}},
		{"hard link to the root", innerdock.CodeInvalid, [][]entry{{hard("x", ".")}}},
		{"devices", "", [][]entry{{node(tar.TypeChar, "dev/cuse"), node(tar.TypeBlock, "dev/sda"), node(tar.TypeFifo, "pipe")}}},
		{"hard link to a device", "", [][]entry{{node(tar.TypeChar, "c"), hard("x", "c")}}},
		{"symlink loop", innerdock.CodeInvalid, [][]entry{{link("a", "b"), link("b", "a"), file("a/x")}}},
		{"symlink to itself", innerdock.CodeInvalid, [][]entry{{link("a", "a"), file("a/x")}}},
		{"long symlink chain", innerdock.CodeInvalid, [][]entry{chain(60)}},
		{"file below a file", innerdock.CodeInvalid, [][]entry{{file("f"), file("f/x")}}},
		{"root as a file", innerdock.CodeInvalid, [][]entry{{file(".")}}},
		{"root as a symlink", innerdock.CodeInvalid, [][]entry{{link(".", "/etc")}}},
		{"root as a device", innerdock.CodeInvalid, [][]entry{{node(tar.TypeChar, ".")}}},
		{"long name", innerdock.CodeInvalid, [][]entry{{file(long)}}},
		{"long path", innerdock.CodeInvalid, [][]entry{{file(strings.Repeat("dir/", 1100) + "x")}}},
		{"deep path", innerdock.CodeInvalid, [][]entry{{file(strings.Repeat("d/", 300) + "x")}}},
		{"deep by symlink", innerdock.CodeInvalid, [][]entry{{file(strings.Repeat("d/", 200) + "x"), link("l", strings.Repeat("d/", 200)), file("l/" + strings.Repeat("e/", 200) + "x")}}},
		{"long symlink target", innerdock.CodeInvalid, [][]entry{{link("l", strings.Repeat("y", 5000))}}},
		{"empty symlink target", innerdock.CodeInvalid, [][]entry{{link("l", "")}}},
		{"negative owner", innerdock.CodeInvalid, [][]entry{{{Header: tar.Header{Typeflag: tar.TypeReg, Name: "f", Uid: -1}}}}},
		{"owner beyond 32 bits", innerdock.CodeInvalid, [][]entry{{{Header: tar.Header{Typeflag: tar.TypeReg, Name: "f", Gid: 1<<32 - 1}}}}},
		{"/dev as a symlink, then in it", "", [][]entry{{link("dev", "/etc"), node(tar.TypeChar, "dev/cuse"), file("dev/innerdock-canary")}}},
		{"/dev as a symlink to itself", innerdock.CodeInvalid, [][]entry{{link("dev", "dev"), file("dev/null")}}},
		{"/dev in another case", "", [][]entry{{dir("DEV"), node(tar.TypeChar, "DEV/cuse")}}},
		{"file below a device", innerdock.CodeInvalid, [][]entry{{node(tar.TypeChar, "d"), file("d/x")}}},
		{"symlink over a directory with content", "", [][]entry{{file("d/e/f"), link("d", "/"), file("d/canary")}}},
		{"symlink that becomes a way out between two entries", "", [][]entry{{dir("d"), file("d/x")}, {link("d", "../.."), file("d/canary")}}},
		{"hard link to a file in a symlink's directory", "", [][]entry{{file("a/f"), link("b", "/a"), hard("b/g", "b/f")}}},
		{"hard link to a whiteout", innerdock.CodeInvalid, [][]entry{{file("f")}, {file(".wh.f"), hard("x", "f")}}},
		{"hard links of one another", innerdock.CodeInvalid, [][]entry{{hard("a", "b"), hard("b", "a")}}},
		{"whiteout of the root", innerdock.CodeInvalid, [][]entry{{file("f")}, {file("/.wh.")}}},
		{"whiteout as a directory", "", [][]entry{{file("d/f")}, {dir(".wh.d")}}},
		{"whiteout as a symlink out", "", [][]entry{{file("canary")}, {link(".wh.canary", "../canary")}}},
		{"the same name a thousand times", "", [][]entry{slices.Repeat([]entry{file("f"), dir("f"), link("f", "../canary")}, 1000)}},
		{"attributes of overlayfs", "", [][]entry{{xattr(dir("d"), "trusted.overlay.opaque", "y"), xattr(file("f"), "trusted.overlay.redirect", "/../canary")}}},
		{"attribute of a megabyte", "", [][]entry{{xattr(file("f"), "user.x", strings.Repeat("x", 900_000))}}},
		{"unknown type", innerdock.CodeInvalid, [][]entry{{{Header: tar.Header{Typeflag: 'Z', Name: "f"}}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			needRoot(t)
			g := newGround(t)
			var layers [][]byte
			for _, entries := range tc.layers {
				layers = append(layers, archive(t, entries...))
			}
			_, err := g.process(t.Context(), DefaultLimits(), layers...)
			if got := innerdock.CodeOf(err); got != tc.code {
				t.Errorf("the code is %q, want %q (%v)", got, tc.code, err)
			}
			g.check(t)
			if names, err := os.ReadDir(g.tree); err != nil || len(names) != 1 {
				t.Errorf("beside the image there is %v, %v", names, err)
			}
			for _, path := range []string{"/etc/innerdock-canary", "/canary"} {
				if _, err := os.Lstat(path); err == nil {
					t.Fatalf("%s was made on the host", path)
				}
			}
			if err != nil {
				return
			}
			for _, line := range g.listing(t) {
				if strings.HasSuffix(line, special) {
					t.Errorf("a special file came through: %s", line)
				}
			}
		})
	}
}

func chain(n int) []entry {
	var entries []entry
	for i := range n {
		entries = append(entries, link(fmt.Sprintf("l%d", i), fmt.Sprintf("l%d", i+1)))
	}
	return append(entries, dir(fmt.Sprintf("l%d", n)), file("l0/x"))
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: run it with sudo")
	}
}

func TestLayers(t *testing.T) {
	needRoot(t)
	for _, tc := range []struct {
		name   string
		layers [][]entry
		want   string
	}{
		{"whiteout of a file", [][]entry{{file("d/a"), file("d/b")}, {file("d/.wh.a")}}, "d/ d/b=new d/b"},
		{"whiteout of a directory", [][]entry{{file("d/e/a"), file("b")}, {file(".wh.d")}}, "b=new b"},
		{"whiteout of nothing", [][]entry{{file("b")}, {file(".wh.x"), file("y/.wh.z")}}, "b=new b"},
		{"whiteout leaves its own layer alone", [][]entry{{file("a")}, {text("a", "2"), file(".wh.a")}}, "a=2"},
		{"whiteout leaves its own layer's directory alone", [][]entry{{file("d/old"), file("d/e/old")}, {text("d/e/x", "2"), file(".wh.d")}}, "d/ d/e/ d/e/x=2"},
		{"opaque", [][]entry{{file("d/a"), file("d/e/b"), file("c")}, {file("d/.wh..wh..opq"), text("d/x", "2")}}, "c=new c d/ d/x=2"},
		{"opaque after the layer's own files", [][]entry{{file("d/a"), file("d/e/b")}, {text("d/x", "2"), text("d/e/y", "3"), file("d/.wh..wh..opq")}}, "d/ d/e/ d/e/y=3 d/x=2"},
		{"opaque root", [][]entry{{file("d/a"), file("c")}, {file(".wh..wh..opq"), text("x", "2")}}, "x=2"},
		{"aufs bookkeeping", [][]entry{{file("c")}, {file(".wh..wh.aufs"), dir(".wh..wh.plnk")}}, "c=new c"},
		{"file becomes directory", [][]entry{{file("a")}, {file("a/b")}}, "!"},
		{"file replaced by directory", [][]entry{{file("a")}, {dir("a"), text("a/b", "2")}}, "a/ a/b=2"},
		{"directory replaced by file", [][]entry{{file("a/b/c")}, {text("a", "2")}}, "a=2"},
		{"directory replaced by symlink", [][]entry{{file("a/b"), file("c/d")}, {link("a", "c"), text("a/x", "2")}}, "a->c c/ c/d=new c/d c/x=2"},
		{"symlink replaced by directory", [][]entry{{file("c/d"), link("a", "c")}, {dir("a"), text("a/x", "2")}}, "a/ a/x=2 c/ c/d=new c/d"},
		{"symlink to a directory is followed", [][]entry{{dir("run"), dir("var"), link("var/run", "/run")}, {text("var/run/x", "2")}}, "run/ run/x=2 var/ var/run->/run"},
		{"dangling symlink to a directory", [][]entry{{link("var/run", "/run")}, {text("var/run/x", "2")}}, "run/ run/x=2 var/ var/run->/run"},
		{"hard link", [][]entry{{text("a", "1"), hard("b/c", "a")}}, "a=1 b/ b/c=1"},
		{"hard link of an earlier layer", [][]entry{{text("a", "1")}, {hard("b", "/a")}}, "a=1 b=1"},
		{"hard link is not written through", [][]entry{{text("a", "1"), hard("b", "a")}, {text("b", "2")}}, "a=1 b=2"},
		{"hard link to itself", [][]entry{{text("a", "1"), hard("a", "a")}}, "a=1"},
		{"device replaces a file", [][]entry{{text("a", "1")}, {node(tar.TypeChar, "a")}}, ""},
		{"file replaces a device", [][]entry{{node(tar.TypeChar, "a")}, {text("a", "1"), hard("b", "a")}}, "a=1 b=1"},
		{"odd names", [][]entry{{text("./a//b/./c", "1"), text("\x01\n ü", "2"), text("back\\slash", "3")}}, "\x01\n ü=2 a/ a/b/ a/b/c=1 back\\slash=3"},
		{"global header", [][]entry{{{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"path": "../x"}}}, text("a", "1")}}, "a=1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := newGround(t)
			var layers [][]byte
			for _, entries := range tc.layers {
				layers = append(layers, archive(t, entries...))
			}
			err := g.unpack(t.Context(), DefaultLimits(), layers...)
			if tc.want == "!" {
				if innerdock.CodeOf(err) != innerdock.CodeInvalid {
					t.Errorf("the error is %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(g.listing(t), " "); got != tc.want {
				t.Errorf("the tree is %q, want %q", got, tc.want)
			}
			g.check(t)
		})
	}
}

func TestMetadata(t *testing.T) {
	needRoot(t)
	g := newGround(t)
	when := time.Unix(1700000000, 0)
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	suid := entry{tar.Header{
		Typeflag: tar.TypeReg, Name: "d/suid", Mode: 0o6755, Uid: 7, Gid: 8, ModTime: when, Size: 1,
		PAXRecords: map[string]string{"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.secret": "x", "SCHILY.xattr.trusted.overlay.opaque": "y"},
	}, "x"}
	symlink := link("d/l", "suid")
	symlink.ModTime, symlink.Uid = when, 9
	late := file("late")
	late.ModTime = time.Unix(99999999999, 0)
	broken := file("broken")
	broken.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": "nonsense"}
	d := dir("d")
	d.Mode, d.ModTime, d.Gid = 0o1777, when, 5
	if err := g.unpack(t.Context(), DefaultLimits(), archive(t, dir("./"), d, suid, symlink, late, broken, file("implicit/f"))); err != nil {
		t.Fatal(err)
	}
	tree := g.extract(t)
	for _, tc := range []struct {
		path          string
		mode          uint32
		uid, gid      uint32
		mtime, xattrs int64
	}{
		{".", 0o40755, 0, 0, 0, 0},
		{"d", 0o41777, 0, 5, 1700000000, 0},
		{"d/suid", 0o100755, 7, 8, 1700000000, 0}, // fsck.erofs drops the set-ID bits: see below
		{"d/l", 0o120777, 9, 0, 1700000000, 0},
		{"late", 0o100644, 0, 0, latest.Unix(), 0},
		{"broken", 0o100644, 0, 0, 0, 0},
		{"implicit", 0o40755, 0, 0, 0, 0},
	} {
		path := filepath.Join(tree, tc.path)
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		if st.Mode != tc.mode || st.Uid != tc.uid || st.Gid != tc.gid || st.Mtim.Sec != tc.mtime {
			t.Errorf("%s: mode %o owner %d:%d time %d, want %o %d:%d %d", tc.path, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, tc.mode, tc.uid, tc.gid, tc.mtime)
		}
		if tc.mode&syscall.S_IFMT == syscall.S_IFLNK {
			continue
		}
		names := make([]byte, 1024)
		n, err := syscall.Listxattr(path, names)
		if err != nil || int64(bytes.Count(names[:n], []byte{0})) != tc.xattrs {
			t.Errorf("%s has the attributes %q, %v", tc.path, names[:n], err)
		}
	}
	if mode := g.modeOf(t, "/d/suid"); mode != 0o106755 {
		t.Errorf("the mode is %o", mode)
	}
}

// modeOf is the mode of a file as it stands in the image.
func (g ground) modeOf(t *testing.T, path string) uint16 {
	t.Helper()
	out, err := exec.Command("dump.erofs", "--path="+path, g.image).CombinedOutput()
	if err != nil {
		t.Fatalf("dump.erofs: %v: %s", err, out)
	}
	found := regexp.MustCompile(`NID: (\d+)`).FindSubmatch(out)
	if found == nil {
		t.Fatalf("dump.erofs says %s", out)
	}
	number, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(g.image)
	if err != nil {
		t.Fatal(err)
	}
	meta := binary.LittleEndian.Uint32(data[1024+40:])
	return binary.LittleEndian.Uint16(data[int(meta)*4096+number*32+4:])
}

func TestLimits(t *testing.T) {
	needRoot(t)
	limits := Limits{Bytes: 1 << 20, Entries: 50, Depth: 10, Path: 200, Memory: 1 << 20}
	var many, headers []entry
	for i := range 60 {
		many = append(many, file(fmt.Sprint(i)))
	}
	for i := range 40 {
		e := file(fmt.Sprint(i))
		e.PAXRecords = map[string]string{"SCHILY.xattr.user.x": strings.Repeat("x", 90<<10)}
		headers = append(headers, e)
	}
	sparse := sparseBomb(t)
	for _, tc := range []struct {
		name  string
		layer []byte
		code  innerdock.Code
	}{
		{"one large file", archive(t, text("f", strings.Repeat("x", 2<<20))), innerdock.CodeTooLarge},
		{"many files", archive(t, many...), innerdock.CodeTooLarge},
		{"many bytes in headers", archive(t, headers...), innerdock.CodeTooLarge},
		{"padding without end", append(archive(t, file("f")), make([]byte, 4<<20)...), innerdock.CodeTooLarge},
		{"a sparse file of 8 TiB", sparse, innerdock.CodeTooLarge},
		{"deep", archive(t, file(strings.Repeat("d/", 20)+"x")), innerdock.CodeInvalid},
		{"long", archive(t, file(strings.Repeat("dddddd/", 9)+strings.Repeat("x", 180))), innerdock.CodeInvalid},
		{"truncated", archive(t, text("f", strings.Repeat("x", 10000)))[:6000], innerdock.CodeInvalid},
		{"garbage", bytes.Repeat([]byte("garbage!"), 1000), innerdock.CodeInvalid},
		{"empty", nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := newGround(t)
			err := g.unpack(t.Context(), limits, tc.layer)
			if got := innerdock.CodeOf(err); got != tc.code {
				t.Errorf("the code is %q, want %q (%v)", got, tc.code, err)
			}
			g.check(t)
		})
	}
}

// sparseBomb is an archive of a few hundred bytes with a file of 8 TiB, in PAX
// format 1.0 as GNU tar writes it.
func sparseBomb(t *testing.T) []byte {
	t.Helper()
	body := "1\n0\n0\n" + strings.Repeat("\x00", 512-6)
	e := entry{tar.Header{
		Typeflag: tar.TypeReg, Name: "GNUSparseFile.0/f", Size: int64(len(body)), Mode: 0o644, Format: tar.FormatPAX,
	}, body}
	data := archive(t, e)
	// archive/tar refuses to write GNU.sparse records, so they are put in by hand.
	records := "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n37 GNU.sparse.realsize=8796093022208\n"
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "x", Size: int64(len(records))}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(tw, records); err != nil {
		t.Fatal(err)
	}
	if err := tw.Flush(); err != nil {
		t.Fatal(err)
	}
	pax := buf.Bytes()
	pax[156] = 'x'
	checksum(pax[:512])
	return append(pax, data...)
}

func checksum(block []byte) {
	copy(block[148:156], "        ")
	sum := 0
	for _, b := range block {
		sum += int(b)
	}
	copy(block[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

func TestCancel(t *testing.T) {
	g := newGround(t)
	cause := errors.New("gone home")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := g.unpack(ctx, DefaultLimits(), archive(t, file("f"))); !errors.Is(err, cause) {
		t.Errorf("the error is %v, want %v", err, cause)
	}
}

func TestDecompress(t *testing.T) {
	plain := archive(t, file("f"))
	var gz, zs bytes.Buffer
	g := gzip.NewWriter(&gz)
	z, err := zstd.NewWriter(&zs)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []io.WriteCloser{g, z} {
		if _, err := w.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range map[string][]byte{"gzip": gz.Bytes(), "zstd": zs.Bytes(), "plain": plain, "empty": nil} {
		r, err := decompress(bytes.NewReader(data))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := io.ReadAll(r)
		if err != nil || len(data) > 0 && !bytes.Equal(got, plain) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestBombs has the process meet what is small and becomes large.
func TestBombs(t *testing.T) {
	needRoot(t)
	limits := DefaultLimits()
	limits.Bytes = 32 << 20
	plain := archive(t, text("zeros", strings.Repeat("\x00", 16<<20)))
	for _, tc := range []struct {
		name   string
		blob   []byte
		diffID string
		code   innerdock.Code
	}{
		{"zeros", pack(t, plain), digest(plain), ""},
		{"another digest", pack(t, plain), digest(nil), innerdock.CodeInvalid},
		{"no digest", pack(t, plain), "", innerdock.CodeInvalid},
		{"gzip without end", pack(t, append(archive(t, file("f")), make([]byte, 200<<20)...)), digest(nil), innerdock.CodeTooLarge},
		{"gzip that is cut off", pack(t, plain)[:5000], digest(plain), innerdock.CodeInvalid},
		{"gzip that is damaged", append(pack(t, plain)[:5000], pack(t, plain)[5100:]...), digest(plain), innerdock.CodeInvalid},
		{"gzip in gzip", pack(t, pack(t, plain)), digest(plain), innerdock.CodeInvalid},
		{"zstd with a large window", []byte("\x28\xb5\x2f\xfd\x00\xa0\x01\x00\x00"), digest(nil), innerdock.CodeInvalid},
		{"a page of HTML", []byte("<!DOCTYPE html><html>" + strings.Repeat("no such layer ", 100)), digest(nil), innerdock.CodeInvalid},
		{"a sparse file of 8 TiB", sparseBomb(t), digest(sparseBomb(t)), innerdock.CodeTooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := newGround(t)
			l, err := g.layer(tc.blob, tc.diffID)
			if err != nil {
				t.Fatal(err)
			}
			_, err = g.processLayers(t.Context(), limits, l)
			if got := innerdock.CodeOf(err); got != tc.code {
				t.Errorf("the code is %q, want %q (%v)", got, tc.code, err)
			}
			g.check(t)
			if info, err := os.Stat(g.image); err != nil || info.Size() > 40<<20 {
				t.Errorf("the image has %d bytes, %v", info.Size(), err)
			}
		})
	}
}

// pack compresses with gzip.
func pack(t *testing.T, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// sound reads all of the image, by others' code, and wants no special file in it.
func (g ground) sound(t *testing.T) {
	t.Helper()
	f, err := os.Open(g.image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	image, err := reader.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	err = fs.WalkDir(image, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Type() == fs.ModeSymlink:
			_, err = fs.ReadLink(image, path)
		case d.Type().IsRegular():
			_, err = fs.ReadFile(image, path)
		case !d.IsDir():
			t.Errorf("%q is a special file", path)
		}
		return err
	})
	if err != nil {
		t.Errorf("the image is not sound: %v", err)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(archive(f, dir("a"), file("a/b"), link("l", "../.."), file("l/x"), hard("h", "a/b"), file("a/.wh.b"), file(".wh..wh..opq")))
	f.Add(archive(f, link("a", "/b"), link("b", "c/.."), file("a/x"), node(tar.TypeChar, "dev/null"), hard("y", "dev/null")))
	f.Add(archive(f, text("d/e/f", "x"), link("d/g", "e"), hard("d/g/h", "d/e/f"), dir("d/e"), file("d/.wh.e")))
	limits := Limits{Bytes: 1 << 20, Entries: 200, Depth: 20, Path: 300, Memory: 1 << 20}
	g := newGround(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		// Twice, so that the second meets what the first has made.
		err := g.unpack(t.Context(), limits, data, data)
		if innerdock.CodeOf(err) == innerdock.CodeInternal {
			t.Errorf("an archive can break the server: %v", err)
		}
		g.check(t)
		if err == nil {
			g.sound(t)
		}
	})
}
