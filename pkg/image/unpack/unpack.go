// Package unpack turns the layers of an OCI image into a directory tree, and
// trusts none of them.
//
// What a layer may do:
//   - Every path is taken inside the tree: absolute names and absolute symlinks
//     start at its root, and a name with a ".." element is refused. Symlinks are
//     followed in the directory part of a name only, by this package's own
//     resolver; every change to the file system then goes through os.Root, so
//     that a mistake in the resolver ends in an error and not outside.
//   - Regular files, directories, symlinks and hard links are made. Device nodes,
//     FIFOs and hard links to them are dropped: a sandbox makes its own /dev, and
//     a FIFO in an image has no reader.
//   - Of extended attributes, security.capability is kept. Set-user-ID bits are
//     kept too, so the tree must lie in a directory that only root can enter.
//   - Whiteouts hide what earlier layers wrote, never what their own layer wrote.
//   - Bytes, entries, depth and the length of paths are capped (Limits).
//
// The result depends on the layers alone: modification times come from them, and
// directories that no layer names get the time zero.
package unpack

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/innerdock/innerdock"
)

// Limits are what all layers of one image together may use.
type Limits struct {
	Bytes   int64 // of file contents, and of the archives themselves
	Entries int   // in all archives
	Depth   int   // elements of a path
	Path    int   // bytes of a path, or of a symlink's target
}

// DefaultLimits are far above any honest image.
func DefaultLimits() Limits {
	return Limits{Bytes: 64 << 30, Entries: 4_000_000, Depth: 256, Path: 4095}
}

// maxName is the longest file name, in bytes.
const maxName = 255

// Tree is a directory that layers are applied to, one after the other. It is
// not safe for concurrent use, and nobody else may change the directory.
type Tree struct {
	root    *os.Root
	limits  Limits
	bytes   int64 // of contents
	read    int64 // of archives
	entries int
	parents parentCache
	times   map[string]time.Time // of directories, set at the end
	dropped map[string]bool      // paths of entries that were not made
	fresh   map[string]bool      // what the layer being applied wrote
	hidden  map[string]bool      // what the layer being applied has hidden already
	buf     []byte
}

// New begins a tree in dir, an empty directory.
func New(dir string, limits Limits) (*Tree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, innerdock.Internal(err, "opening the unpack directory")
	}
	return &Tree{
		root: root, limits: limits,
		parents: newParentCache(),
		times:   map[string]time.Time{".": time.Unix(0, 0)},
		dropped: map[string]bool{},
		buf:     make([]byte, 256<<10),
	}, nil
}

// Dropped returns how many entries were left out (device nodes, FIFOs).
func (t *Tree) Dropped() int { return len(t.dropped) }

// Close gives the directory up; what is in it stays.
func (t *Tree) Close() error {
	t.parents.clear()
	return t.root.Close()
}

// Finish sets the times of the directories, which unpacking kept changing.
func (t *Tree) Finish() error {
	for path, when := range t.times {
		info, err := t.root.Lstat(path)
		if err != nil || !info.IsDir() {
			continue // replaced or hidden by a later entry
		}
		if err := t.root.Chtimes(path, when, when); err != nil {
			return failed(path, err)
		}
	}
	return nil
}

// Apply unpacks one layer: an uncompressed tar archive, read to its end. The
// tree is of no use after an error.
func (t *Tree) Apply(ctx context.Context, layer io.Reader) error {
	t.fresh, t.hidden = map[string]bool{}, map[string]bool{}
	err := t.apply(ctx, layer)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (t *Tree) apply(ctx context.Context, layer io.Reader) error {
	src := &meter{ctx: ctx, r: layer, tree: t}
	tr := tar.NewReader(src)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return archiveError(err)
		}
		if err := t.entry(hdr, tr); err != nil {
			return err
		}
	}
	if _, err := io.CopyBuffer(io.Discard, src, t.buf); err != nil { // padding: part of the digest
		return archiveError(err)
	}
	return nil
}

func (t *Tree) entry(hdr *tar.Header, content io.Reader) error {
	if t.entries++; t.entries > t.limits.Entries {
		return innerdock.Errorf(innerdock.CodeTooLarge, "the image has more than %d files; use a smaller image", t.limits.Entries)
	}
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	path, err := t.clean(hdr.Name)
	if err != nil {
		return err
	}
	dir, base := split(path)
	if strings.HasPrefix(base, whiteoutPrefix) {
		return t.whiteout(dir, base)
	}
	switch hdr.Typeflag {
	case tar.TypeDir, tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont, tar.TypeSymlink, tar.TypeLink:
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return t.drop(dir, base)
	default:
		return refused("%q is of the unknown type %q", clip(path), hdr.Typeflag)
	}
	return t.make(hdr, dir, base, content)
}

// make creates the one thing that hdr describes.
func (t *Tree) make(hdr *tar.Header, dir, base string, content io.Reader) error {
	if hdr.Uid < 0 || hdr.Gid < 0 || int64(hdr.Uid) >= 1<<32-1 || int64(hdr.Gid) >= 1<<32-1 {
		return refused("%q has the owner %d:%d", clip(hdr.Name), hdr.Uid, hdr.Gid)
	}
	if base == "." {
		if hdr.Typeflag != tar.TypeDir {
			return refused("its root is not a directory")
		}
		return t.directory(hdr, ".")
	}
	parent, err := t.parent(dir)
	if err != nil {
		return err
	}
	switch hdr.Typeflag {
	case tar.TypeDir:
		err = t.directory(hdr, parent.join(base))
	case tar.TypeSymlink:
		err = t.symlink(hdr, parent, base)
	case tar.TypeLink:
		err = t.hardlink(hdr, parent, base)
	default:
		err = t.file(hdr, parent, base, content)
	}
	if err != nil {
		return failed(hdr.Name, err)
	}
	t.wrote(parent.join(base))
	return nil
}

// drop leaves an entry out, and whatever an earlier layer had in its place.
func (t *Tree) drop(dir, base string) error {
	if base == "." {
		return refused("its root is not a directory")
	}
	parent, err := t.parent(dir)
	if err != nil {
		return err
	}
	if err := t.clear(parent.join(base), false); err != nil {
		return failed(base, err)
	}
	t.dropped[parent.join(base)] = true
	return nil
}

// meter reads an archive, counts it, and stops at the limit or when the
// context ends.
type meter struct {
	ctx  context.Context
	r    io.Reader
	tree *Tree
}

func (m *meter) Read(p []byte) (int, error) {
	if m.ctx.Err() != nil {
		return 0, context.Cause(m.ctx)
	}
	n, err := m.r.Read(p)
	// Headers and padding come on top of contents: allow as much again.
	if m.tree.read += int64(n); m.tree.read > 2*m.tree.limits.Bytes+1<<20 {
		return n, tooLarge(m.tree.limits.Bytes)
	}
	return n, err
}

// archiveError gives an error of reading an archive its code.
func archiveError(err error) error {
	var coded *innerdock.Error
	switch {
	case errors.As(err, &coded):
		return coded
	case errors.Is(err, tar.ErrHeader), errors.Is(err, io.ErrUnexpectedEOF):
		return innerdock.Errorf(innerdock.CodeInvalid, "the image is refused: a layer is not a sound tar archive (%w); it may be damaged, push it again", err)
	}
	return innerdock.Errorf(innerdock.CodeInvalid, "the image is refused: a layer cannot be read (%w)", err)
}

// failed names the path of a file system error, and gives it its code.
func failed(path string, err error) error {
	var coded *innerdock.Error
	switch {
	case errors.As(err, &coded):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return innerdock.Errorf(innerdock.CodeExhausted, "the disk is full; remove images that are not used, or make room in the data directory, and try again")
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong):
		return archiveError(err)
	case errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP),
		errors.Is(err, syscall.EMLINK), errors.Is(err, syscall.EISDIR), strings.Contains(err.Error(), "path escapes"):
		return refused("%q cannot be made: %w", clip(path), err)
	}
	return innerdock.Internal(err, "unpacking the image")
}

func refused(format string, args ...any) error {
	return innerdock.Errorf(innerdock.CodeInvalid, "the image is refused: "+format, args...)
}

func tooLarge(limit int64) error {
	return innerdock.Errorf(innerdock.CodeTooLarge, "the image is larger than %d MiB unpacked; use a smaller image", limit>>20)
}

// clip shortens a name from an archive for a message.
func clip(s string) string {
	if len(s) > 120 {
		return s[:120] + "…"
	}
	return s
}
