package imagetest

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/erofs/go-erofs"
)

// Extract writes the content of an EROFS file into a new directory, with owners,
// modes, times and hard links.
func Extract(t testing.TB, root string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	if err := extract(root, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func extract(root, dir string) error {
	file, err := os.Open(root)
	if err != nil {
		return err
	}
	defer file.Close()
	image, err := erofs.Open(file)
	if err != nil {
		return err
	}
	e := extractor{image: image, dir: dir, names: map[int64]string{}, times: map[string]time.Time{}}
	if err := fs.WalkDir(image, ".", e.visit); err != nil {
		return err
	}
	for path, when := range e.times {
		if err := os.Chtimes(path, when, when); err != nil {
			return err
		}
	}
	return nil
}

type extractor struct {
	image fs.FS
	dir   string
	names map[int64]string // of inodes that were written
	times map[string]time.Time
}

func (e *extractor) visit(name string, d fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	info, err := d.Info()
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*erofs.Stat)
	if !ok {
		return errors.New("the reader of EROFS gives no attributes")
	}
	path := filepath.Join(e.dir, name)
	switch info.Mode().Type() {
	case fs.ModeDir:
		err = os.Mkdir(path, 0o700)
		e.times[path] = info.ModTime()
	case fs.ModeSymlink:
		target, rerr := fs.ReadLink(e.image, name)
		if rerr != nil {
			return rerr
		}
		return errors.Join(os.Symlink(target, path), os.Lchown(path, int(stat.UID), int(stat.GID)))
	case 0:
		if first, ok := e.names[stat.Ino]; ok {
			return os.Link(first, path)
		}
		e.names[stat.Ino] = path
		err = e.file(name, path)
	default:
		return errors.New(name + " is a special file")
	}
	if err != nil {
		return err
	}
	return errors.Join(os.Chown(path, int(stat.UID), int(stat.GID)), os.Chmod(path, stat.Mode), os.Chtimes(path, info.ModTime(), info.ModTime()))
}

func (e *extractor) file(name, path string) error {
	from, err := e.image.Open(name)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}
