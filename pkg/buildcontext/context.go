// Package buildcontext packs a directory of this machine for the build of an
// image, without what its .dockerignore leaves out.
package buildcontext

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"github.com/innerdock/innerdock"
)

// Caps of a context.
const (
	maxFiles = 200_000
	maxSize  = 4 << 30
)

// ignoreFile says what a context leaves out, unless the Dockerfile has one of its own.
const ignoreFile = ".dockerignore"

// Context is a packed directory.
type Context struct {
	Archive *os.File // at its beginning; without a name, and gone when it is closed
	Size    int64
	Digest  string
}

// Pack packs dir. dockerfile is the name of the Dockerfile, which may have an ignore
// file of its own, or "". The same files make the same archive: it is sorted,
// without times and owners. Symlinks stay what they are; pipes, sockets and devices
// are left out. The caller closes the archive.
func Pack(ctx context.Context, dir, dockerfile string) (Context, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Context{}, unreadable(err)
	}
	defer root.Close()
	p := packer{ctx: ctx, root: root}
	if p.ignore, err = ignored(root, dockerfile); err != nil {
		return Context{}, err
	}
	out, err := os.CreateTemp("", "innerdock-context-")
	if err != nil {
		return Context{}, innerdock.Errorf(innerdock.CodeInvalid, "no room to pack the files: %w", err)
	}
	sum := sha256.New()
	p.tar = tar.NewWriter(io.MultiWriter(out, sum))
	err = errors.Join(os.Remove(out.Name()), fs.WalkDir(root.FS(), ".", p.visit))
	if err == nil {
		err = p.tar.Close()
	}
	var size int64
	if err == nil {
		size, err = out.Seek(0, io.SeekCurrent)
	}
	if err == nil {
		_, err = out.Seek(0, io.SeekStart)
	}
	if err != nil {
		return Context{}, errors.Join(unreadable(err), out.Close())
	}
	return Context{Archive: out, Size: size, Digest: "sha256:" + hex.EncodeToString(sum.Sum(nil))}, nil
}

// ignored reads the first ignore file that is there.
func ignored(root *os.Root, dockerfile string) (*patternmatcher.PatternMatcher, error) {
	for _, name := range []string{dockerfile + ignoreFile, ignoreFile} {
		file, err := root.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, unreadable(err)
		}
		patterns, err := ignorefile.ReadAll(io.LimitReader(file, 1<<20))
		_ = file.Close()
		if name != ignoreFile {
			patterns = append(patterns, ignoreFile) // BuildKit would mind that one as well
		}
		var matcher *patternmatcher.PatternMatcher
		if err == nil {
			matcher, err = patternmatcher.New(patterns)
		}
		if err != nil {
			return nil, innerdock.Errorf(innerdock.CodeInvalid, "%s: %w", name, err)
		}
		return matcher, nil
	}
	return patternmatcher.New(nil)
}

// packer writes what a walk comes by.
type packer struct {
	ctx    context.Context
	root   *os.Root
	ignore *patternmatcher.PatternMatcher
	tar    *tar.Writer
	files  int
	size   int64
}

func (p *packer) visit(name string, entry fs.DirEntry, err error) error {
	if err != nil || name == "." {
		return err
	}
	if p.ctx.Err() != nil {
		return context.Cause(p.ctx)
	}
	out, err := p.ignore.MatchesOrParentMatches(filepath.FromSlash(name))
	if err != nil {
		return innerdock.Errorf(innerdock.CodeInvalid, "%s: %w", ignoreFile, err)
	}
	if out {
		if entry.IsDir() && !p.ignore.Exclusions() {
			return fs.SkipDir
		}
		return nil
	}
	if !utf8.ValidString(name) {
		return innerdock.Errorf(innerdock.CodeInvalid, "the name of %q is not UTF-8: rename it", name)
	}
	if p.files++; p.files > maxFiles {
		return tooMuch()
	}
	header := &tar.Header{Name: name, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	switch entry.Type() {
	case 0:
		return p.file(header)
	case fs.ModeDir:
		header.Typeflag, header.Name = tar.TypeDir, name+"/"
	case fs.ModeSymlink:
		header.Typeflag, header.Mode = tar.TypeSymlink, 0o777
		if header.Linkname, err = p.root.Readlink(name); err != nil {
			return err
		}
		return p.tar.WriteHeader(header)
	default:
		return nil
	}
	info, err := entry.Info()
	if err != nil {
		return err
	}
	header.Mode = int64(info.Mode().Perm())
	return p.tar.WriteHeader(header)
}

func (p *packer) file(header *tar.Header) error {
	file, err := p.root.OpenFile(header.Name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() { // replaced meanwhile
		return err
	}
	if p.size += info.Size(); p.size > maxSize {
		return tooMuch()
	}
	header.Size, header.Mode = info.Size(), int64(info.Mode().Perm())
	if err := p.tar.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.CopyN(p.tar, file, info.Size())
	if errors.Is(err, io.EOF) {
		return innerdock.Errorf(innerdock.CodeInvalid, "%s became shorter while it was read; try again", header.Name)
	}
	return err
}

func tooMuch() error {
	return innerdock.Errorf(innerdock.CodeInvalid, "the files are more than %d, or than %d GiB: name in %s what the image does not need", maxFiles, maxSize>>30, ignoreFile)
}

// unreadable is the error of reading a context, which is the user's.
func unreadable(err error) error {
	if coded := (*innerdock.Error)(nil); errors.As(err, &coded) || errors.Is(err, context.Canceled) {
		return err
	}
	return innerdock.Errorf(innerdock.CodeInvalid, "the files cannot be read: %w", err)
}
