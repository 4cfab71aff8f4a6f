package unpack

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// capabilityRecord is the PAX record of the one extended attribute that is kept.
const capabilityRecord = "SCHILY.xattr.security.capability"

// latest is the last modification time that is kept: 2100.
var latest = time.Unix(4102444800, 0)

// directory makes or changes the directory p, a resolved path.
func (t *Tree) directory(hdr *tar.Header, p string) error {
	info, err := t.root.Lstat(p)
	switch {
	case err == nil && !info.IsDir():
		if err := t.clear(p, false); err != nil {
			return err
		}
		fallthrough
	case errors.Is(err, fs.ErrNotExist):
		if err := t.root.Mkdir(p, 0o700); err != nil {
			return err
		}
	case err != nil:
		return err
	}
	delete(t.dropped, p)
	t.times[p] = modTime(hdr)
	if err := t.root.Chown(p, hdr.Uid, hdr.Gid); err != nil {
		return err
	}
	return t.root.Chmod(p, fileMode(hdr))
}

// file makes a regular file with hdr's content.
func (t *Tree) file(hdr *tar.Header, parent *parentDir, base string, content io.Reader) error {
	if hdr.Size < 0 || hdr.Size > t.limits.Bytes-t.bytes {
		return tooLarge(t.limits.Bytes)
	}
	t.bytes += hdr.Size
	parent, err := t.replace(parent, base)
	if err != nil {
		return err
	}
	f, err := parent.root.OpenFile(base, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = t.fill(f, hdr, content)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return setTime(parent, base, hdr)
}

func (t *Tree) fill(f *os.File, hdr *tar.Header, content io.Reader) error {
	// A LimitedReader hides tar.Reader.WriteTo, which would seek over holes: the
	// copy must be bounded by what the header said.
	n, err := io.CopyBuffer(onlyWriter{f}, io.LimitReader(content, hdr.Size), t.buf)
	if err != nil {
		return err
	}
	if n != hdr.Size {
		return io.ErrUnexpectedEOF
	}
	if err := f.Chown(hdr.Uid, hdr.Gid); err != nil {
		return err
	}
	if err := f.Chmod(fileMode(hdr)); err != nil { // after chown, which clears set-ID bits
		return err
	}
	if v, ok := hdr.PAXRecords[capabilityRecord]; ok {
		err := unix.Fsetxattr(int(f.Fd()), "security.capability", []byte(v), 0)
		// A malformed attribute, or a file system without: the file works for root.
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	return nil
}

// onlyWriter hides ReadFrom, so that the tree's buffer is used.
type onlyWriter struct{ io.Writer }

func (t *Tree) symlink(hdr *tar.Header, parent *parentDir, base string) error {
	if hdr.Linkname == "" || len(hdr.Linkname) > t.limits.Path {
		return refused("the symlink %q has a target of %d bytes", clip(hdr.Name), len(hdr.Linkname))
	}
	parent, err := t.replace(parent, base)
	if err != nil {
		return err
	}
	if err := parent.root.Symlink(hdr.Linkname, base); err != nil {
		return err
	}
	if err := parent.root.Lchown(base, hdr.Uid, hdr.Gid); err != nil {
		return err
	}
	return setTime(parent, base, hdr)
}

// hardlink makes another name of a file of the tree. The target's directory is
// resolved inside the tree, its last element is not followed.
func (t *Tree) hardlink(hdr *tar.Header, parent *parentDir, base string) error {
	target, err := t.clean(hdr.Linkname)
	if err != nil {
		return err
	}
	dir, last := split(target)
	dir, err = t.resolve(dir)
	if err != nil {
		return err
	}
	target = join(dir, last)
	name := parent.join(base)
	if t.dropped[target] {
		if err := t.clear(name, false); err != nil {
			return err
		}
		t.dropped[name] = true
		return nil
	}
	if target == name {
		return nil // a link to itself changes nothing
	}
	info, err := t.root.Lstat(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return refused("the hard link %q has no target %q", clip(hdr.Name), clip(hdr.Linkname))
	case err != nil:
		return err
	case !info.Mode().IsRegular() && info.Mode()&fs.ModeSymlink == 0:
		return refused("the hard link %q leads to %q, which is no file", clip(hdr.Name), clip(hdr.Linkname))
	}
	if inside(target, name) {
		return refused("the hard link %q would replace its own target", clip(hdr.Name))
	}
	if _, err := t.replace(parent, base); err != nil {
		return err
	}
	return t.root.Link(target, name)
}

// replace removes what base is now. It returns the parent, reopened if that
// was needed.
func (t *Tree) replace(parent *parentDir, base string) (*parentDir, error) {
	delete(t.dropped, parent.join(base))
	info, err := parent.root.Lstat(base)
	if errors.Is(err, fs.ErrNotExist) {
		return parent, nil
	}
	if err != nil {
		return nil, err
	}
	if info.Mode().IsRegular() {
		return parent, parent.root.Remove(base)
	}
	path := parent.path
	if err := t.clear(join(path, base), false); err != nil {
		return nil, err
	}
	return t.parent(path)
}

// clear removes p, a resolved path, with everything below it; with lower, only
// what the present layer did not write.
func (t *Tree) clear(p string, lower bool) error {
	if lower && t.fresh[p] {
		return t.clearBelow(p)
	}
	t.parents.clear()
	return t.root.RemoveAll(p)
}

// clearBelow removes from the directory p what earlier layers wrote.
func (t *Tree) clearBelow(p string) error {
	d, err := t.root.OpenFile(p, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := t.clear(join(p, name), true); err != nil {
			return err
		}
	}
	return nil
}

// wrote notes that the present layer made p, and so the directories above it.
func (t *Tree) wrote(p string) {
	for !t.fresh[p] {
		t.fresh[p] = true
		if p == "." {
			return
		}
		p, _ = split(p)
	}
}

// setTime sets the modification time of a file or a symlink.
func setTime(parent *parentDir, base string, hdr *tar.Header) error {
	ts, err := unix.TimeToTimespec(modTime(hdr))
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(int(parent.handle.Fd()), base, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

func modTime(hdr *tar.Header) time.Time {
	switch m := hdr.ModTime; {
	case m.Before(time.Unix(0, 0)):
		return time.Unix(0, 0)
	case m.After(latest):
		return latest
	default:
		return m
	}
}

// fileMode converts the permission bits, set-ID and sticky bits included.
func fileMode(hdr *tar.Header) fs.FileMode {
	mode := fs.FileMode(hdr.Mode & 0o777)
	if hdr.Mode&0o4000 != 0 {
		mode |= fs.ModeSetuid
	}
	if hdr.Mode&0o2000 != 0 {
		mode |= fs.ModeSetgid
	}
	if hdr.Mode&0o1000 != 0 {
		mode |= fs.ModeSticky
	}
	return mode
}
