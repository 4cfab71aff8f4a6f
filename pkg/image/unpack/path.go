package unpack

import (
	"path"
	"strings"

	"github.com/innerdock/innerdock/pkg/image/erofs"
)

// maxSymlinks is how many symlinks one path may lead through, as in Linux.
const maxSymlinks = 40

// maxSteps is how many path elements that may take.
const maxSteps = 1024

// clean checks the name of an entry and makes it relative to the root: "." is
// the root itself.
func (m *Image) clean(name string) (string, error) {
	switch {
	case len(name) > m.limits.Path:
		return "", refused("%q is longer than %d bytes", clip(name), m.limits.Path)
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
	if depth > m.limits.Depth {
		return "", refused("%q is deeper than %d directories", clip(name), m.limits.Depth)
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

// place is where a path leads: an entry, and the names below it that are not there.
type place struct {
	entry   erofs.Entry
	missing []string
}

func (p place) exists() bool { return len(p.missing) == 0 }

// resolve follows the symlinks of p, a directory's path, as a process in the
// image would: absolute targets start at the root, and ".." stops there. What
// does not exist is taken as it is written.
func (m *Image) resolve(p string) (place, error) {
	todo := strings.Split(p, "/")
	at := place{entry: erofs.Root}
	links := 0
	for steps := 0; len(todo) > 0; steps++ {
		if steps > maxSteps {
			return place{}, refused("%q leads through more than %d directories", clip(p), maxSteps)
		}
		part := todo[0]
		todo = todo[1:]
		switch {
		case part == "" || part == ".":
			continue
		case len(part) > maxName:
			return place{}, refused("%q leads to a name longer than %d bytes", clip(p), maxName)
		case part == ".." && !at.exists():
			at.missing = at.missing[:len(at.missing)-1]
			continue
		case part == "..":
			at.entry = m.fs.Parent(at.entry)
			continue
		}
		next := erofs.Entry(0)
		if at.exists() {
			next = m.fs.Lookup(at.entry, part)
		}
		if next == 0 {
			at.missing = append(at.missing, part)
			continue
		}
		target, ok := m.fs.Target(next)
		if !ok {
			at.entry = next
			continue
		}
		if links++; links > maxSymlinks {
			return place{}, refused("%q leads through more than %d symlinks", clip(p), maxSymlinks)
		}
		if strings.HasPrefix(target, "/") {
			at.entry = erofs.Root
		}
		if todo = append(strings.Split(target, "/"), todo...); len(todo) > maxSteps {
			return place{}, refused("%q leads through more than %d directories", clip(p), maxSteps)
		}
	}
	return at, nil
}

// parent returns the directory that an entry goes into, made if need be.
func (m *Image) parent(dir string) (erofs.Entry, error) {
	at, err := m.resolve(dir)
	if err != nil {
		return 0, err
	}
	depth := len(at.missing)
	for e := at.entry; e != erofs.Root; e = m.fs.Parent(e) {
		depth++
	}
	if depth >= m.limits.Depth {
		return 0, refused("%q leads deeper than %d directories", clip(dir), m.limits.Depth)
	}
	for _, name := range at.missing {
		if !m.fs.IsDir(at.entry) {
			break
		}
		if at.entry, err = m.fs.Mkdir(at.entry, name, implicit); err != nil {
			return 0, err
		}
		m.wrote(at.entry)
	}
	if !m.fs.IsDir(at.entry) {
		return 0, refused("%q is below a file", clip(dir))
	}
	return at.entry, nil
}
