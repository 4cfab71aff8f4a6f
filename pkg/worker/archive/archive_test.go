package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/worker/archive"
)

var key, otherKey = []byte(strings.Repeat("k", 32)), []byte(strings.Repeat("o", 32))

// packed is an archive of two files, with an image.
func packed(t testing.TB) []byte {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"checkpoint.img": "processes", "pages.img": strings.Repeat("memory", 1000)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files, err := archive.Describe(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	m := archive.Manifest{Build: "b", Image: "i", Memory: 1, Env: map[string]string{"A": "1"}, Files: files}
	image := func(w io.Writer) error { _, err := io.WriteString(w, "an image"); return err }
	if err := archive.Write(t.Context(), &out, m, dir, key, image); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// read reads an archive to its end.
func read(t testing.TB, content []byte, dir string) (ours bool, image string, err error) {
	a, err := archive.Read(t.Context(), bytes.NewReader(content))
	if err != nil {
		return false, "", err
	}
	if ours, err = a.Unpack(dir, key); err != nil {
		return false, "", err
	}
	r, err := a.Image()
	if err != nil {
		return ours, "", err
	}
	text, err := io.ReadAll(r)
	return ours, string(text), err
}

func TestThereAndBack(t *testing.T) {
	content := packed(t)
	dir := t.TempDir()
	ours, image, err := read(t, content, dir)
	if err != nil || !ours || image != "an image" {
		t.Errorf("ours %v, image %q, %v", ours, image, err)
	}
	pages, err := os.ReadFile(filepath.Join(dir, "pages.img"))
	if err != nil || string(pages) != strings.Repeat("memory", 1000) {
		t.Errorf("the pages are %d bytes, %v", len(pages), err)
	}
	a, err := archive.Read(t.Context(), bytes.NewReader(content))
	if err != nil || a.Manifest.Env["A"] != "1" || !a.Manifest.WithImage || a.Manifest.Size() != 6009 {
		t.Fatalf("the manifest is %+v, %v", a.Manifest, err)
	}
	if ours, err := a.Unpack(t.TempDir(), otherKey); err != nil || ours {
		t.Errorf("with another key it is ours: %v, %v", ours, err)
	}
}

// An archive that is cut short anywhere is refused.
func TestCutShort(t *testing.T) {
	content := packed(t)
	end := bytes.LastIndex(content, []byte("an image")) + len("an image")
	for n := 0; n < end; n += 97 {
		if _, image, err := read(t, content[:n], t.TempDir()); err == nil && image == "an image" {
			t.Fatalf("the first %d of %d bytes are taken for all", n, end)
		}
	}
}

// A byte that is changed in a file of the checkpoint is noticed.
func TestChanged(t *testing.T) {
	for _, what := range []string{"processes", "memory"} {
		content := packed(t)
		content[bytes.Index(content, []byte(what))] ^= 1
		_, _, err := read(t, content, t.TempDir())
		if innerdock.CodeOf(err) != innerdock.CodeInvalid || !strings.Contains(err.Error(), "not what was written") {
			t.Errorf("a change of %q: %v", what, err)
		}
	}
}

// What somebody made on purpose is refused, and nothing is written beside the directory.
func TestHostile(t *testing.T) {
	type entry struct {
		header  tar.Header
		content string
	}
	file := func(name, content string) entry {
		return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content))}, content}
	}
	manifest := func(files string) entry { return file("snapshot.json", `{"format": 1, "files": [`+files+`]}`) }
	one := manifest(`{"name": "a.img", "size": 4}`)
	for name, entries := range map[string][]entry{
		"no manifest":      {file("checkpoint/a.img", "data")},
		"no JSON":          {file("snapshot.json", "{")},
		"a later format":   {file("snapshot.json", `{"format": 2}`)},
		"no files":         {manifest("")},
		"many files":       {manifest(strings.Repeat(`{"name": "a.img"},`, 16) + `{"name": "b.img"}`)},
		"the same twice":   {manifest(`{"name": "a.img"}, {"name": "a.img"}`)},
		"a path":           {manifest(`{"name": "../a.img"}`)},
		"an absolute path": {manifest(`{"name": "/a.img"}`)},
		"less than none":   {manifest(`{"name": "a.img", "size": -1}`)},
		"beyond all":       {manifest(`{"name": "a.img", "size": 9223372036854775807}, {"name": "b.img", "size": 1}`)},
		"a large manifest": {file("snapshot.json", strings.Repeat(" ", 1<<20)+"{}")},
		"another file":     {one, file("checkpoint/b.img", "data")},
		"a path after all": {one, file("checkpoint/../a.img", "data")},
		"more than said":   {one, file("checkpoint/a.img", "data!")},
		"less than said":   {one, file("checkpoint/a.img", "dat")},
		"a link":           {one, {tar.Header{Typeflag: tar.TypeSymlink, Name: "checkpoint/a.img", Linkname: "/etc/passwd"}, ""}},
		"a device":         {one, {tar.Header{Typeflag: tar.TypeBlock, Name: "checkpoint/a.img", Devmajor: 8}, ""}},
		"no seal":          {one, file("checkpoint/a.img", "data")},
		"a seal of text":   {one, file("checkpoint/a.img", "data"), file("seal.json", "x")},
		"an empty seal":    {one, file("checkpoint/a.img", "data"), file("seal.json", "{}")},
		"a large seal":     {one, file("checkpoint/a.img", "data"), file("seal.json", strings.Repeat(" ", 5000)+"{}")},
	} {
		t.Run(name, func(t *testing.T) {
			var content bytes.Buffer
			tw := tar.NewWriter(&content)
			for _, e := range entries {
				if err := tw.WriteHeader(&e.header); err != nil {
					t.Fatal(err)
				}
				if _, err := io.WriteString(tw, e.content); err != nil {
					t.Fatal(err)
				}
			}
			if err := tw.Close(); err != nil {
				t.Fatal(err)
			}
			above := t.TempDir()
			dir := filepath.Join(above, "dir")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			_, _, err := read(t, content.Bytes(), dir)
			if code := innerdock.CodeOf(err); code != innerdock.CodeInvalid && code != innerdock.CodeUnsupported {
				t.Errorf("it is %v", err)
			}
			if left, err := os.ReadDir(above); err != nil || len(left) != 1 {
				t.Errorf("beside the directory are %v, %v", left, err)
			}
		})
	}
}

// A hole counts as the bytes that it stands for: an archive of a few kilobytes fills no
// disk.
func TestHoles(t *testing.T) {
	from := t.TempDir()
	if err := os.Mkdir(filepath.Join(from, "checkpoint"), 0o700); err != nil {
		t.Fatal(err)
	}
	manifest := filepath.Join(from, "snapshot.json")
	if err := os.WriteFile(manifest, []byte(`{"format": 1, "files": [{"name": "a.img", "size": 4096}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	hole := filepath.Join(from, "checkpoint", "a.img")
	if err := errors.Join(os.WriteFile(hole, nil, 0o600), os.Truncate(hole, 1<<40)); err != nil {
		t.Fatal(err)
	}
	content, err := exec.CommandContext(t.Context(), "tar", "--sparse", "--format=posix", "-C", from, "-cf", "-", "snapshot.json", "checkpoint/a.img").Output()
	if err != nil || len(content) > 1<<20 {
		t.Fatalf("tar made %d bytes, %v", len(content), err)
	}
	dir := t.TempDir()
	if _, _, err := read(t, content, dir); innerdock.CodeOf(err) != innerdock.CodeInvalid {
		t.Errorf("it is %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("of a hole there is %v, %v", left, err)
	}
}

func TestGivenUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	a, err := archive.Read(ctx, bytes.NewReader(packed(t)))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := a.Unpack(t.TempDir(), key); err == nil {
		t.Error("it is read on after nobody waits for it")
	}
}

// Whatever an archive holds, it is an error of the caller or what was written.
func FuzzRead(f *testing.F) {
	f.Add(packed(f))
	f.Fuzz(func(t *testing.T, content []byte) {
		_, _, err := read(t, content, t.TempDir())
		switch innerdock.CodeOf(err) {
		case "", innerdock.CodeInvalid, innerdock.CodeUnsupported:
		default:
			t.Errorf("it is %v", err)
		}
	})
}
