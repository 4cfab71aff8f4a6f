// Package unpack merges the layers of an OCI image into one EROFS file, and
// trusts none of them. Nothing is made in a file system of the host: names are
// kept in memory, and contents go to the one file that the caller has opened.
//
// What a layer may do:
//   - Every path is taken inside the image: absolute names and absolute symlinks
//     start at its root, and a name with a ".." element is refused. Symlinks are
//     followed in the directory part of a name only.
//   - Regular files, directories, symlinks and hard links are made. Device nodes,
//     FIFOs and hard links to them are dropped: a sandbox makes its own /dev, and
//     a FIFO in an image has no reader.
//   - Set-user-ID bits are kept; extended attributes are not, since gVisor refuses
//     inodes that have some.
//   - Whiteouts hide what earlier layers wrote, never what their own layer wrote.
//   - Bytes, entries, depth, the length of paths and the memory for names are
//     capped (Limits).
//
// The result depends on the layers alone: modification times come from them, and
// directories that no layer names get the time zero.
//
// Image does the work in this process, Process in one that can do nothing else.
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
	"github.com/innerdock/innerdock/pkg/image/erofs"
)

// Limits are what all layers of one image together may use.
type Limits struct {
	Bytes   int64 // of file contents, and of the archives themselves
	Entries int   // in all archives
	Depth   int   // elements of a path
	Path    int   // bytes of a path, or of a symlink's target
	Memory  int64 // bytes for the names: about 100 for each file
}

// DefaultLimits are far above any honest image.
func DefaultLimits() Limits {
	return Limits{Bytes: 64 << 30, Entries: 4_000_000, Depth: 256, Path: 4095, Memory: 112 << 20}
}

// maxName is the longest file name, in bytes.
const maxName = 255

// maxLayers is how many layers an image may have: they are numbered in 16 bits.
const maxLayers = 1 << 15

// Image is an image that layers are added to, one after the other, from the
// lowest. It is not safe for concurrent use.
type Image struct {
	fs      *erofs.Writer
	limits  Limits
	bytes   int64 // of contents
	read    int64 // of archives
	entries int
	dropped int
	layer   uint16
	buf     []byte
}

// New begins an image in out, an empty file.
func New(out *os.File, limits Limits) *Image {
	fs := erofs.New(out, limits.Memory)
	fs.Change(erofs.Root, implicit)
	return &Image{fs: fs, limits: limits, buf: make([]byte, 256<<10)}
}

// implicit is what directories have that no layer names.
var implicit = erofs.Attributes{Mode: 0o755, Modified: time.Unix(0, 0)}

// Dropped returns how many entries were left out (device nodes, FIFOs).
func (m *Image) Dropped() int { return m.dropped }

// Finish writes what is left of the file.
func (m *Image) Finish() error { return failed("", m.fs.Finish()) }

// Apply adds one layer: an uncompressed tar archive, read to its end. The image
// is of no use after an error.
func (m *Image) Apply(ctx context.Context, layer io.Reader) error {
	if m.layer++; m.layer > maxLayers {
		return refused("it has more than %d layers", maxLayers)
	}
	err := m.apply(ctx, layer)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (m *Image) apply(ctx context.Context, layer io.Reader) error {
	src := &meter{ctx: ctx, r: layer, image: m}
	tr := tar.NewReader(src)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return archiveError(err)
		}
		if err := m.entry(hdr, tr); err != nil {
			return err
		}
	}
	if _, err := io.CopyBuffer(io.Discard, src, m.buf); err != nil { // padding: part of the digest
		return archiveError(err)
	}
	return nil
}

func (m *Image) entry(hdr *tar.Header, content io.Reader) error {
	if m.entries++; m.entries > m.limits.Entries {
		return innerdock.Errorf(innerdock.CodeTooLarge, "the image has more than %d files; use a smaller image", m.limits.Entries)
	}
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	path, err := m.clean(hdr.Name)
	if err != nil {
		return err
	}
	dir, base := split(path)
	if strings.HasPrefix(base, whiteoutPrefix) {
		return m.whiteout(dir, base)
	}
	switch hdr.Typeflag {
	case tar.TypeDir, tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont, tar.TypeSymlink, tar.TypeLink,
		tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
	default:
		return refused("%q is of the unknown type %q", clip(path), hdr.Typeflag)
	}
	if hdr.Uid < 0 || hdr.Gid < 0 || int64(hdr.Uid) >= 1<<32-1 || int64(hdr.Gid) >= 1<<32-1 {
		return refused("%q has the owner %d:%d", clip(hdr.Name), hdr.Uid, hdr.Gid)
	}
	if base == "." {
		if hdr.Typeflag != tar.TypeDir {
			return refused("its root is not a directory")
		}
		m.fs.Change(erofs.Root, attributes(hdr))
		m.wrote(erofs.Root)
		return nil
	}
	return failed(hdr.Name, m.make(hdr, dir, base, content))
}

// make creates the one thing that hdr describes.
func (m *Image) make(hdr *tar.Header, dir, base string, content io.Reader) error {
	parent, err := m.parent(dir)
	if err != nil {
		return err
	}
	var e erofs.Entry
	switch hdr.Typeflag {
	case tar.TypeDir:
		e, err = m.directory(hdr, parent, base)
	case tar.TypeSymlink:
		e, err = m.symlink(hdr, parent, base)
	case tar.TypeLink:
		e, err = m.hardlink(hdr, parent, base)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		e, err = m.drop(parent, base)
	default:
		e, err = m.file(hdr, parent, base, content)
	}
	if err != nil {
		return err
	}
	m.wrote(e)
	return nil
}

// meter reads an archive, counts it, and stops at the limit or when the
// context ends.
type meter struct {
	ctx   context.Context
	r     io.Reader
	image *Image
}

func (m *meter) Read(p []byte) (int, error) {
	if m.ctx.Err() != nil {
		return 0, context.Cause(m.ctx)
	}
	n, err := m.r.Read(p)
	// Headers and padding come on top of contents: allow as much again.
	if m.image.read += int64(n); m.image.read > 2*m.image.limits.Bytes+1<<20 {
		return n, tooLarge(m.image.limits.Bytes)
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

// failed gives an error of making the entry with a path its code.
func failed(path string, err error) error {
	var coded *innerdock.Error
	var system syscall.Errno
	switch {
	case err == nil:
		return nil
	case errors.As(err, &coded):
		return err
	case errors.Is(err, erofs.ErrMemory):
		return innerdock.Errorf(innerdock.CodeTooLarge, "the image has too many files; use a smaller image")
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return innerdock.Errorf(innerdock.CodeExhausted, "the disk is full; remove images that are not used, or make room in the data directory, and try again")
	case errors.Is(err, syscall.EFBIG):
		return innerdock.Errorf(innerdock.CodeTooLarge, "the image is larger than the server takes; use a smaller image")
	case errors.As(err, &system):
		return innerdock.Internal(err, "writing the image")
	}
	return archiveError(err) // of reading the content
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
