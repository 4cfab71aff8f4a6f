package buildcontext

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
)

var t0 = time.Unix(1000, 0)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}

// pack returns the entries of a packed directory, and its digest.
func pack(t *testing.T, dir, dockerfile string) (entries []string, digest string) {
	t.Helper()
	c, err := Pack(t.Context(), dir, dockerfile)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Archive.Close()
	if info, err := c.Archive.Stat(); err != nil || info.Size() != c.Size {
		t.Errorf("the size is %d, %v", c.Size, err)
	}
	archive := tar.NewReader(c.Archive)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return entries, c.Digest
		}
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.IsZero() && h.ModTime.Unix() != 0 || h.Uid != 0 || h.Mode&^0o777 != 0 {
			t.Errorf("%+v", h)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, h.Name+"="+h.Linkname+string(content))
	}
}

func TestPack(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		".dockerignore": "**/*.log\nmodules\n!modules/keep\n", "Dockerfile": "FROM x", "a/b": "1", "a/c.log": "2", "modules/keep": "3", "modules/rest": "4",
	})
	if err := errors.Join(os.Symlink("/etc/passwd", filepath.Join(dir, "link")), unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600), os.Chmod(filepath.Join(dir, "a/b"), 0o4755)); err != nil {
		t.Fatal(err)
	}
	want := []string{".dockerignore=**/*.log\nmodules\n!modules/keep\n", "Dockerfile=FROM x", "a/=", "a/b=1", "link=/etc/passwd", "modules/keep=3"}
	got, digest := pack(t, dir, "Dockerfile")
	if !slices.Equal(got, want) {
		t.Errorf("packed %q, want %q", got, want)
	}
	if err := os.Chtimes(filepath.Join(dir, "a/b"), t0, t0); err != nil {
		t.Fatal(err)
	}
	if _, again := pack(t, dir, ""); again != digest {
		t.Error("another time is another archive")
	}
	write(t, dir, map[string]string{"Dockerfile.dockerignore": "*\n!a\n!.dockerignore\n"})
	if got, _ := pack(t, dir, "Dockerfile"); !slices.Equal(got, []string{"a/=", "a/b=1", "a/c.log=2"}) {
		t.Errorf("with an ignore file of its own: %q", got)
	}
}

func TestPackRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		files map[string]string
		want  string
	}{
		"a broken pattern":  {map[string]string{".dockerignore": "["}, "syntax error"},
		"a name":            {map[string]string{"\xff": ""}, "UTF-8"},
		"a missing context": {nil, "cannot be read"},
	} {
		dir := filepath.Join(t.TempDir(), "context")
		write(t, dir, tc.files)
		c, err := Pack(t.Context(), dir, "")
		if err == nil {
			_ = c.Archive.Close()
		}
		if innerdock.CodeOf(err) != innerdock.CodeInvalid || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
