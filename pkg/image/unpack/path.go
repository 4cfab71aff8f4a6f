package unpack

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"
)

// maxSymlinks is how many symlinks one path may lead through, as in Linux.
const maxSymlinks = 40

// maxSteps is how many path elements that may take.
const maxSteps = 1024

// clean checks the name of an entry and makes it relative to the root: "." is
// the root itself.
func (t *Tree) clean(name string) (string, error) {
	switch {
	case len(name) > t.limits.Path:
		return "", refused("%q is longer than %d bytes", clip(name), t.limits.Path)
	case strings.IndexByte(name, 0) >= 0:
		return "", refused("%q holds a zero byte", clip(name))
	}
	depth := 0
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "..":
			return "", refused("%q leads out of its directory", clip(name))
		case len(part) > maxName:
			return "", refused("%q has a name longer than %d bytes", clip(name), maxName)
		case part != "" && part != ".":
			depth++
		}
	}
	if depth > t.limits.Depth {
		return "", refused("%q is deeper than %d directories", clip(name), t.limits.Depth)
	}
	if depth == 0 {
		return ".", nil
	}
	return strings.TrimPrefix(path.Clean("/"+name), "/"), nil
}

// split parts a clean path into its directory ("." for the root) and its last element.
func split(p string) (dir, base string) {
	i := strings.LastIndexByte(p, '/')
	if i < 0 {
		return ".", p
	}
	return p[:i], p[i+1:]
}

// join appends base to dir, which may be ".".
func join(dir, base string) string {
	if dir == "." {
		return base
	}
	return dir + "/" + base
}

// resolve follows the symlinks of p, a directory's path, as a process in the
// tree would: absolute targets start at the root, and ".." stops there. What
// does not exist is taken as it is written. The result holds no symlink.
func (t *Tree) resolve(p string) (string, error) {
	todo := strings.Split(p, "/")
	done := "."
	links := 0
	for steps := 0; len(todo) > 0; steps++ {
		if steps > maxSteps {
			return "", refused("%q leads through more than %d directories", clip(p), maxSteps)
		}
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done, _ = split(done)
			continue
		}
		next := join(done, part)
		if len(next) > t.limits.Path {
			return "", refused("%q leads to a path longer than %d bytes", clip(p), t.limits.Path)
		}
		info, err := t.root.Lstat(next)
		if errors.Is(err, fs.ErrNotExist) {
			done = next
			continue
		}
		if err != nil {
			return "", failed(next, err)
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			done = next
			continue
		}
		if links++; links > maxSymlinks {
			return "", refused("%q leads through more than %d symlinks", clip(p), maxSymlinks)
		}
		target, err := t.root.Readlink(next)
		if err != nil {
			return "", failed(next, err)
		}
		if strings.HasPrefix(target, "/") {
			done = "."
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return done, nil
}

// parent returns the directory that an entry goes into, made if need be.
func (t *Tree) parent(dir string) (*parentDir, error) {
	if p, ok := t.parents.open[dir]; ok {
		return p, nil
	}
	resolved, err := t.resolve(dir)
	if err != nil {
		return nil, err
	}
	if strings.Count(resolved, "/") >= t.limits.Depth {
		return nil, refused("%q leads deeper than %d directories", clip(dir), t.limits.Depth)
	}
	if err := t.mkdirs(resolved); err != nil {
		return nil, failed(dir, err)
	}
	root, err := t.root.OpenRoot(resolved)
	if err != nil {
		return nil, failed(dir, err)
	}
	handle, err := root.Open(".")
	if err != nil {
		_ = root.Close()
		return nil, failed(dir, err)
	}
	p := &parentDir{path: resolved, root: root, handle: handle}
	t.parents.add(dir, p)
	return p, nil
}

// mkdirs makes the directories of a resolved path that no layer has named.
func (t *Tree) mkdirs(p string) error {
	if p == "." {
		return nil
	}
	info, err := t.root.Lstat(p)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return &fs.PathError{Op: "mkdir", Path: p, Err: syscall.ENOTDIR}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	dir, _ := split(p)
	if err := t.mkdirs(dir); err != nil {
		return err
	}
	if err := t.root.Mkdir(p, 0o755); err != nil {
		return err
	}
	t.times[p] = time.Unix(0, 0)
	t.wrote(p)
	return t.root.Chmod(p, 0o755) // whatever the umask
}

// parentDir is an open directory of the tree.
type parentDir struct {
	path   string // without symlinks
	root   *os.Root
	handle *os.File
}

func (p *parentDir) join(base string) string { return join(p.path, base) }

// parentCache keeps the directories that entries went into lately. It must be
// emptied whenever a directory or a symlink goes away.
type parentCache struct{ open map[string]*parentDir }

const maxParents = 64

func newParentCache() parentCache { return parentCache{open: map[string]*parentDir{}} }

func (c *parentCache) add(dir string, p *parentDir) {
	if len(c.open) >= maxParents {
		c.clear()
	}
	c.open[dir] = p
}

func (c *parentCache) clear() {
	for _, p := range c.open {
		_ = p.handle.Close() // only read from
		_ = p.root.Close()
	}
	clear(c.open)
}
