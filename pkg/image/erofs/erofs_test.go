package erofs_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	reader "github.com/erofs/go-erofs"

	"github.com/innerdock/innerdock/pkg/image/erofs"
)

const memory = 64 << 20

// write makes a file with what fill puts into it, has fsck.erofs look at it, and
// returns it opened.
func write(t *testing.T, fill func(*erofs.Writer)) (fs.FS, *os.File) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "root.erofs"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	w := erofs.New(f, memory)
	fill(w)
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("fsck.erofs", f.Name()).CombinedOutput(); err != nil || bytes.Contains(out, []byte("<E>")) {
		t.Errorf("fsck.erofs (apt-get install erofs-utils): %v: %s", err, out)
	}
	image, err := reader.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	return image, f
}

// must fails the test at an error of making an entry.
func must(t *testing.T) func(erofs.Entry, error) erofs.Entry {
	return func(e erofs.Entry, err error) erofs.Entry {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
}

var plain = erofs.Attributes{Mode: 0o640, UID: 70000, GID: 1 << 31, Modified: time.Unix(1700000000, 123456789)}

// TestSizes makes directories, names, symlinks and files of the sizes at which
// something changes in the format.
func TestSizes(t *testing.T) {
	var names []string
	for _, n := range []int{0, 1, 2, 14, 15, 16, 17, 100, 300, 5000} {
		names = append(names, fmt.Sprint(n))
	}
	links := []int{1, 59, 60, 4031, 4032, 4033, 4095}
	sizes := []int{0, 1, 4095, 4096, 4097, 1<<20 - 1, 1 << 20, 3<<20 + 5}
	content := func(n int) string { return strings.Repeat("0123456789abcde\n", n/16+1)[:n] }
	long := func(i int) string {
		return fmt.Sprintf("%s-%d", strings.Repeat("n", 249), i)[:255-5] + fmt.Sprintf("%05d", i)
	}
	image, _ := write(t, func(w *erofs.Writer) {
		ok := must(t)
		for _, name := range names {
			dir := ok(w.Mkdir(erofs.Root, name, plain))
			var n int
			fmt.Sscan(name, &n)
			for _, i := range rand.Perm(n) {
				ok(w.Create(dir, long(i), plain, 0, nil))
			}
			ok(w.Create(dir, "!before the dots", plain, 0, nil))
		}
		for _, n := range links {
			ok(w.Symlink(erofs.Root, fmt.Sprintf("link%d", n), content(n), plain))
		}
		for _, n := range sizes {
			ok(w.Create(erofs.Root, fmt.Sprintf("file%d", n), plain, int64(n), strings.NewReader(content(n))))
		}
	})
	for _, name := range names {
		var n int
		fmt.Sscan(name, &n)
		entries, err := fs.ReadDir(image, name)
		if err != nil || len(entries) != n+1 {
			t.Fatalf("%s has %d entries, %v", name, len(entries), err)
		}
		for i := range n {
			if entries[i+1].Name() != long(i) {
				t.Fatalf("entry %d of %s is %s", i, name, entries[i+1].Name())
			}
			if _, err := fs.Stat(image, name+"/"+long(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, n := range links {
		if got, err := fs.ReadLink(image, fmt.Sprintf("link%d", n)); err != nil || got != content(n) {
			t.Errorf("a symlink of %d bytes leads to %d, %v", n, len(got), err)
		}
	}
	for _, n := range sizes {
		if got, err := fs.ReadFile(image, fmt.Sprintf("file%d", n)); err != nil || string(got) != content(n) {
			t.Errorf("a file of %d bytes has %d, %v", n, len(got), err)
		}
	}
	info, err := fs.Stat(image, "file1")
	if err != nil {
		t.Fatal(err)
	}
	stat := info.Sys().(*reader.Stat)
	if stat.Mode != 0o640 || stat.UID != 70000 || stat.GID != 1<<31 || !info.ModTime().Equal(plain.Modified) {
		t.Errorf("the attributes are %+v", stat)
	}
}

// TestChanges makes and removes at random, and compares with what a map says.
func TestChanges(t *testing.T) {
	seed := [32]byte{byte(time.Now().UnixNano())}
	t.Logf("the seed is %v", seed)
	want := map[string]string{}
	image, _ := write(t, func(w *erofs.Writer) {
		random, ok := rand.New(rand.NewChaCha8(seed)), must(t)
		dirs := []erofs.Entry{ok(w.Mkdir(erofs.Root, "a", plain)), ok(w.Mkdir(erofs.Root, "b", plain))}
		for i := range 20000 {
			d := random.IntN(2)
			name := fmt.Sprint(random.IntN(2000))
			path := string('a'+rune(d)) + "/" + name
			if e := w.Lookup(dirs[d], name); e != 0 {
				if err := w.Remove(e); err != nil {
					t.Fatal(err)
				}
				delete(want, path)
				continue
			}
			content := strings.Repeat(fmt.Sprint(i), random.IntN(2000))
			want[path] = content
			e := ok(w.Create(dirs[d], name, plain, int64(len(content)), strings.NewReader(content)))
			if w.Lookup(dirs[1-d], name) == 0 && random.IntN(3) == 0 {
				ok(w.Link(dirs[1-d], name, e))
				want[string('a'+rune(1-d))+"/"+name] = content
			}
		}
		dropped := ok(w.Mkdir(erofs.Root, "c", plain))
		ok(w.Create(dropped, "x", plain, 1, strings.NewReader("x")))
		ok(w.Absent(erofs.Root, "device"))
		if err := w.Remove(dropped); err != nil {
			t.Fatal(err)
		}
	})
	found := 0
	err := fs.WalkDir(image, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		found++
		got, err := fs.ReadFile(image, path)
		if content, ok := want[path]; !ok || content != string(got) {
			t.Errorf("%s has %.40q", path, got)
		}
		return err
	})
	if err != nil || found != len(want) || found == 0 {
		t.Errorf("%d files were found, want %d; %v", found, len(want), err)
	}
}

// TestSame gives the same file for the same calls, whatever the hashes of names.
func TestSame(t *testing.T) {
	var sums [2][32]byte
	for i := range sums {
		_, f := write(t, func(w *erofs.Writer) {
			for n := range 3000 {
				must(t)(w.Create(erofs.Root, fmt.Sprint(n), plain, 5, strings.NewReader("hello")))
			}
		})
		data, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		sums[i] = sha256.Sum256(data)
	}
	if sums[0] != sums[1] {
		t.Error("the same calls gave two files")
	}
}

// TestErased looks for the content of files that were removed, in the file and
// on the disk.
func TestErased(t *testing.T) {
	secret := strings.Repeat("secret", 1<<20)
	image, f := write(t, func(w *erofs.Writer) {
		for i := range 4 {
			e := must(t)(w.Create(erofs.Root, "gone", plain, int64(len(secret)), strings.NewReader(secret)))
			must(t)(w.Create(erofs.Root, fmt.Sprint(i), plain, 4, strings.NewReader("kept")))
			if err := w.Remove(e); err != nil {
				t.Fatal(err)
			}
		}
		must(t)(w.Create(erofs.Root, "zeros", plain, 20<<20, bytes.NewReader(make([]byte, 20<<20))))
	})
	data, err := os.ReadFile(f.Name())
	if err != nil || bytes.Contains(data, []byte("secret")) {
		t.Errorf("the removed content is still there, %v", err)
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil || st.Blocks*512 > 1<<20 {
		t.Errorf("the file takes %d bytes on the disk, %v", st.Blocks*512, err)
	}
	if got, err := fs.ReadFile(image, "3"); err != nil || string(got) != "kept" {
		t.Errorf("what was kept is %q, %v", got, err)
	}
}

func TestFailures(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "root.erofs"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := erofs.New(f, 1<<20)
	if _, err := w.Create(erofs.Root, "short", plain, 10, strings.NewReader("x")); err == nil {
		t.Error("a file with less content than it says was made")
	}
	dir := must(t)(w.Mkdir(erofs.Root, "d", plain))
	if _, err := w.Link(erofs.Root, "l", dir); err == nil {
		t.Error("a hard link to a directory was made")
	}
	for i := range 100_000 {
		if _, err = w.Create(erofs.Root, fmt.Sprint(i), plain, 0, nil); err != nil {
			break
		}
	}
	if !errors.Is(err, erofs.ErrMemory) {
		t.Errorf("after 100,000 files in a megabyte the error is %v", err)
	}
}
