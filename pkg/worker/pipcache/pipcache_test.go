package pipcache

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func open(t *testing.T, dir string, limit int64) *Store {
	t.Helper()
	s, err := Open(t.Context(), dir, limit)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func keep(t *testing.T, s *Store, tenant, path, content string) {
	t.Helper()
	if err := s.Keep(tenant, path, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
}

// lent are the files that a tenant's sandbox gets.
func lent(t *testing.T, s *Store, tenant string) map[string]string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "lent")
	if err := s.Lend(tenant, dir); err != nil {
		t.Fatal(err)
	}
	return read(t, dir)
}

func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[entry.Name()] = string(content)
	}
	return files
}

// A tenant has its files and no other's; what was lent stays what it was; and
// another server finds them, without those that were being written.
func TestFilesOfTenants(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 1000)
	keep(t, s, "one", "http/a/b/c", "first")
	keep(t, s, "one", "wheels/a/x-1.0+l-py3-none-any.whl", "wheel")
	keep(t, s, "../two", "http/a/b/c", "theirs")
	before := filepath.Join(t.TempDir(), "before")
	if err := s.Lend("one", before); err != nil {
		t.Fatal(err)
	}
	keep(t, s, "one", "http/a/b/c", "second")
	if got := read(t, before); len(got) != 2 || got["http,a,b,c"] != "first" || got["wheels,a,x-1.0+l-py3-none-any.whl"] != "wheel" {
		t.Errorf("what was lent is %q", got)
	}
	broken := errors.New("broken")
	if err := s.Keep("one", "http/half", io.MultiReader(strings.NewReader("half"), brokenReader{broken})); !errors.Is(err, broken) {
		t.Errorf("half a file: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, making, "file-left"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}

	s = open(t, dir, 1000)
	if got := lent(t, s, "one"); len(got) != 2 || got["http,a,b,c"] != "second" {
		t.Errorf("the first tenant has %q", got)
	}
	if got := lent(t, s, "../two"); len(got) != 1 || got["http,a,b,c"] != "theirs" {
		t.Errorf("the second tenant has %q", got)
	}
	if got := lent(t, s, "three"); len(got) != 0 {
		t.Errorf("the third tenant has %q", got)
	}
	if got := read(t, filepath.Join(dir, making)); len(got) != 0 {
		t.Errorf("there is left %q", got)
	}
	if err := s.Remove("one"); err != nil {
		t.Fatal(err)
	}
	if got := lent(t, s, "one"); len(got) != 0 {
		t.Errorf("after its removal there is %q", got)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 { // making, and two's
		t.Errorf("there is %v, %v", entries, err)
	}
}

type brokenReader struct{ err error }

func (b brokenReader) Read([]byte) (int, error) { return 0, b.err }

// However much comes, a tenant has no more than its limit at any time, and has
// what came last; what is old goes by itself.
func TestLimits(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 1000)
	for i := range 40 {
		keep(t, s, "one", "http/"+strings.Repeat("x", i+1), string(bytes.Repeat([]byte{'a'}, 90)))
		total := 0
		for _, content := range lent(t, s, "one") {
			total += len(content)
		}
		if total > 1000 {
			t.Fatalf("there are %d bytes", total)
		}
	}
	keep(t, s, "one", "http/large", strings.Repeat("x", 1001))
	got := lent(t, s, "one")
	if len(got) < 8 || got["http,"+strings.Repeat("x", 40)] == "" || got["http,x"] != "" || got["http,large"] != "" {
		t.Errorf("there is %d: %q", len(got), got)
	}
	keep(t, s, "one", "http/large", strings.Repeat("x", 1000))
	if got := lent(t, s, "one"); len(got) != 1 {
		t.Errorf("beside a file of all room there is %q", got)
	}

	keep(t, s, "one", "http/a", "a")
	keep(t, s, "one", "http/b", "b")
	long := time.Now().Add(-maxAge - time.Hour)
	if err := os.Chtimes(filepath.Join(s.tenantDir("one"), "http,a"), long, long); err != nil {
		t.Fatal(err)
	}
	if err := s.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := lent(t, s, "one"); len(got) != 1 || got["http,b"] != "b" {
		t.Errorf("beside an old file there is %q", got)
	}
	if got := lent(t, open(t, dir, 0), "one"); len(got) != 0 {
		t.Errorf("without room there is %q", got)
	}
}

// Names from a sandbox that are not pip's are no paths.
func TestPaths(t *testing.T) {
	good := []string{
		"http/9/f/a/2/c/9fa2c0ffee", "http-v2/9/f/a/2/c/9fa2c0ffee.body",
		"wheels/ab/cd/ef/0123/some_thing-1.0+local.1-cp311-cp311-manylinux_2_17_x86_64.whl", "wheels/a/origin.json",
	}
	for _, path := range good {
		if !Path(path) {
			t.Errorf("%s is none", path)
		}
	}
	bad := []string{
		"", "http", "http/", "/http/a", "http//a", "http/a/", "http/../a", "http/.", "http/.hidden", "http/a,b", "http/a\n", "http/a b", "http/ä", "http/a\x00",
		"../http/a", "selfcheck/a", "httpx/a", "http/" + strings.Repeat("a", maxName), "http" + strings.Repeat("/a", 13),
	}
	if i := slices.IndexFunc(bad, Path); i >= 0 {
		t.Errorf("%q is one", bad[i])
	}
}
