package kept

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// opaque is on a directory that hides what is below it.
const opaque = "trusted.overlay.opaque"

// merger makes one directory of a layer and what is below it.
type merger struct {
	moved map[uint64]string // where a file went that has more names, by its inode
}

// merge makes to of the layer top, whose files it moves there, and the merged
// layer below, whose files it links. There may be none below: "".
func merge(top, below, to string) error {
	m := merger{moved: map[uint64]string{}}
	return m.dir(top, below, to)
}

// dir merges directories. One of top and below may be "".
func (m merger) dir(top, below, to string) error {
	like := top
	if top == "" {
		like = below
	}
	var attributes unix.Stat_t
	if err := unix.Lstat(like, &attributes); err != nil {
		return path("lstat", like, err)
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	hidden := map[string]bool{}
	if top != "" {
		if isOpaque(top) {
			below = ""
		}
		entries, err := os.ReadDir(top)
		if err != nil {
			return err
		}
		for _, e := range entries {
			hidden[e.Name()] = true
			if err := m.entry(e, top, below, to); err != nil {
				return err
			}
		}
	}
	if below != "" {
		entries, err := os.ReadDir(below)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if hidden[e.Name()] {
				continue
			}
			from, at := filepath.Join(below, e.Name()), filepath.Join(to, e.Name())
			if e.IsDir() {
				err = m.dir("", from, at)
			} else {
				err = os.Link(from, at)
			}
			if err != nil {
				return err
			}
		}
	}
	return imitate(attributes, to)
}

// entry brings what the layer top has by a name.
func (m merger) entry(e fs.DirEntry, top, below, to string) error {
	from, at := filepath.Join(top, e.Name()), filepath.Join(to, e.Name())
	if e.IsDir() {
		under := ""
		if below != "" {
			under = filepath.Join(below, e.Name())
			if info, err := os.Lstat(under); err != nil || !info.IsDir() {
				under = ""
			}
		}
		return m.dir(from, under, at)
	}
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return path("lstat", from, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFLNK:
	default: // it stands for what is removed, or an image keeps none
		return nil
	}
	if other := m.moved[st.Ino]; other != "" {
		return os.Link(other, at)
	}
	if st.Nlink > 1 {
		m.moved[st.Ino] = at
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		if err := os.Symlink(target, at); err != nil {
			return err
		}
	} else if err := copyFile(from, at); err != nil {
		return err
	} else if st.Nlink == 1 { // there is not room for everything twice
		if err := os.Remove(from); err != nil {
			return err
		}
	}
	return imitate(st, at)
}

// imitate gives what is at a path the owner, mode and time of another.
func imitate(like unix.Stat_t, at string) error {
	if err := os.Lchown(at, int(like.Uid), int(like.Gid)); err != nil {
		return err
	}
	if like.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(at, like.Mode&0o7777); err != nil {
			return path("chmod", at, err)
		}
	}
	times := []unix.Timespec{like.Mtim, like.Mtim}
	return path("utimensat", at, unix.UtimesNanoAt(unix.AT_FDCWD, at, times, unix.AT_SYMLINK_NOFOLLOW))
}

func isOpaque(dir string) bool {
	value := make([]byte, 2)
	n, err := unix.Lgetxattr(dir, opaque, value)
	return err == nil && strings.HasPrefix(string(value[:n]), "y")
}

// path says what failed where, or nil.
func path(op, at string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: at, Err: err}
}
