package unpack

import (
	"archive/tar"
	"io"
	"time"

	"github.com/innerdock/innerdock/pkg/image/erofs"
)

// latest is the last modification time that is kept: 2100.
var latest = time.Unix(4102444800, 0)

// directory makes or changes a directory.
func (m *Image) directory(hdr *tar.Header, parent erofs.Entry, base string) (erofs.Entry, error) {
	if e := m.fs.Lookup(parent, base); e != 0 && m.fs.IsDir(e) {
		m.fs.Change(e, attributes(hdr))
		return e, nil
	}
	if err := m.clear(parent, base); err != nil {
		return 0, err
	}
	return m.fs.Mkdir(parent, base, attributes(hdr))
}

// file makes a regular file with hdr's content.
func (m *Image) file(hdr *tar.Header, parent erofs.Entry, base string, content io.Reader) (erofs.Entry, error) {
	if hdr.Size < 0 || hdr.Size > m.limits.Bytes-m.bytes {
		return 0, tooLarge(m.limits.Bytes)
	}
	m.bytes += hdr.Size
	if err := m.clear(parent, base); err != nil {
		return 0, err
	}
	return m.fs.Create(parent, base, attributes(hdr), hdr.Size, content)
}

func (m *Image) symlink(hdr *tar.Header, parent erofs.Entry, base string) (erofs.Entry, error) {
	if hdr.Linkname == "" || len(hdr.Linkname) > m.limits.Path {
		return 0, refused("the symlink %q has a target of %d bytes", clip(hdr.Name), len(hdr.Linkname))
	}
	if err := m.clear(parent, base); err != nil {
		return 0, err
	}
	a := attributes(hdr)
	a.Mode = 0o777
	return m.fs.Symlink(parent, base, hdr.Linkname, a)
}

// hardlink makes another name of a file of the image. The target's directory is
// resolved inside the image, its last element is not followed.
func (m *Image) hardlink(hdr *tar.Header, parent erofs.Entry, base string) (erofs.Entry, error) {
	path, err := m.clean(hdr.Linkname)
	if err != nil {
		return 0, err
	}
	dir, last := split(path)
	at, err := m.resolve(dir)
	if err != nil {
		return 0, err
	}
	target := erofs.Entry(0)
	if at.exists() {
		target = m.fs.Lookup(at.entry, last)
	}
	if last == "." {
		target = erofs.Root
	}
	old := m.fs.Lookup(parent, base)
	switch {
	case target == 0:
		return 0, refused("the hard link %q has no target %q", clip(hdr.Name), clip(hdr.Linkname))
	case m.fs.IsDir(target):
		return 0, refused("the hard link %q leads to %q, which is no file", clip(hdr.Name), clip(hdr.Linkname))
	case target == old:
		return old, nil // a link to itself changes nothing
	case m.inside(target, old):
		return 0, refused("the hard link %q would replace its own target", clip(hdr.Name))
	}
	if err := m.clear(parent, base); err != nil {
		return 0, err
	}
	if m.fs.IsAbsent(target) {
		m.dropped++
	}
	return m.fs.Link(parent, base, target)
}

// drop leaves an entry out, and whatever an earlier layer had in its place.
func (m *Image) drop(parent erofs.Entry, base string) (erofs.Entry, error) {
	if err := m.clear(parent, base); err != nil {
		return 0, err
	}
	m.dropped++
	return m.fs.Absent(parent, base)
}

// clear removes what a name is now, with everything below it.
func (m *Image) clear(parent erofs.Entry, base string) error {
	if e := m.fs.Lookup(parent, base); e != 0 {
		return m.fs.Remove(e)
	}
	return nil
}

// wrote notes that the present layer made an entry, and so the directories
// above it.
func (m *Image) wrote(e erofs.Entry) {
	for m.fs.Marks(e).Written != m.layer {
		m.fs.Marks(e).Written = m.layer
		e = m.fs.Parent(e)
	}
}

// inside reports whether e lies below dir.
func (m *Image) inside(e, dir erofs.Entry) bool {
	for dir != 0 && e != erofs.Root {
		if e = m.fs.Parent(e); e == dir {
			return true
		}
	}
	return false
}

func attributes(hdr *tar.Header) erofs.Attributes {
	return erofs.Attributes{Mode: uint16(hdr.Mode & 0o7777), UID: uint32(hdr.Uid), GID: uint32(hdr.Gid), Modified: modTime(hdr)}
}

func modTime(hdr *tar.Header) time.Time {
	switch t := hdr.ModTime; {
	case t.Before(time.Unix(0, 0)):
		return time.Unix(0, 0)
	case t.After(latest):
		return latest
	default:
		return t
	}
}
