// Package files serves the sandbox's own file system. Paths are resolved by the
// sandbox's kernel, symlinks included; nothing here is a boundary.
package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/innerdock/innerdock"
)

// MaxList caps the entries of a directory that List returns.
const MaxList = 100_000

// maxLinks is how many symlinks the kernel follows before it gives up.
const maxLinks = 40

// Tree gives access to the files; relative paths are under Dir.
type Tree struct{ Dir func() string }

// resolve makes path absolute.
func (t Tree) resolve(path string) (string, error) {
	switch {
	case path == "":
		return "", innerdock.Errorf(innerdock.CodeInvalid, "path is missing")
	case strings.ContainsRune(path, 0):
		return "", innerdock.Errorf(innerdock.CodeInvalid, "path holds a zero byte")
	case filepath.IsAbs(path):
		return path, nil
	}
	return t.Dir() + "/" + path, nil
}

// Open opens a regular file for reading. The caller closes it.
func (t Tree) Open(path string) (*os.File, fs.FileInfo, error) {
	path, err := t.resolve(path)
	if err != nil {
		return nil, nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe without a writer must not block
	if err != nil {
		return nil, nil, failed(err, path)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = irregular(path, info)
	}
	if err != nil {
		f.Close()
		return nil, nil, failed(err, path)
	}
	return f, info, nil
}

func irregular(path string, info fs.FileInfo) error {
	if info.IsDir() {
		return innerdock.Errorf(innerdock.CodeInvalid, "%s is a directory", path)
	}
	return innerdock.Errorf(innerdock.CodeInvalid, "%s is not a regular file", path)
}

// Write replaces the file with what r holds, at once: a reader sees the old
// content or the new. Missing directories are made. mode nil: that of the file
// that was there, else 0644. A symlink is followed.
func (t Tree) Write(path string, mode *fs.FileMode, r io.Reader) (innerdock.FileInfo, error) {
	path, err := t.resolve(path)
	if err != nil {
		return innerdock.FileInfo{}, err
	}
	if strings.HasSuffix(path, "/") {
		return innerdock.FileInfo{}, innerdock.Errorf(innerdock.CodeInvalid, "%s names a directory, not a file", path)
	}
	target, err := follow(path)
	if err != nil {
		return innerdock.FileInfo{}, failed(err, path)
	}
	old, err := os.Lstat(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		old = nil
	case err != nil:
		return innerdock.FileInfo{}, failed(err, path)
	case !old.Mode().IsRegular():
		return innerdock.FileInfo{}, irregular(path, old)
	}
	if err := replace(target, old, mode, r); err != nil {
		return innerdock.FileInfo{}, failed(err, path)
	}
	return t.Info(target)
}

// follow returns where the file that path names is or would be: its directory
// exists, and it is no symlink.
func follow(path string) (string, error) {
	for range maxLinks {
		dir, name := filepath.Split(path)
		if dir = strings.TrimRight(dir, "/"); dir == "" {
			dir = "/"
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", err
		}
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return "", err
		}
		path = filepath.Join(real, name)
		link, err := os.Readlink(path)
		if err != nil {
			return path, nil
		}
		if !filepath.IsAbs(link) {
			link = real + "/" + link
		}
		path = link
	}
	return "", &fs.PathError{Op: "open", Path: path, Err: syscall.ELOOP}
}

// replace writes a new file beside target and renames it over it.
func replace(target string, old fs.FileInfo, mode *fs.FileMode, r io.Reader) (err error) {
	f, err := os.CreateTemp(filepath.Dir(target), ".innerdock-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	perm := fs.FileMode(0o644)
	if old != nil {
		perm = old.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
		if st := old.Sys().(*syscall.Stat_t); st.Uid != 0 || st.Gid != 0 {
			if err := f.Chown(int(st.Uid), int(st.Gid)); err != nil {
				return err
			}
		}
	}
	if mode != nil {
		perm = *mode
	}
	if _, err := io.Copy(f, body{r}); err != nil {
		return err
	}
	if err := f.Chmod(perm); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), target)
}

// body marks the errors of the request's body.
type body struct{ io.Reader }

func (b body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = innerdock.Errorf(innerdock.CodeInvalid, "the body ended too early: %w", err)
	}
	return n, err
}

// Remove removes a file, an empty directory, or with recursive any directory.
func (t Tree) Remove(path string, recursive bool) error {
	path, err := t.resolve(path)
	if err != nil {
		return err
	}
	if filepath.Clean(path) == "/" {
		return innerdock.Errorf(innerdock.CodeInvalid, "the root directory cannot be removed")
	}
	if _, err := os.Lstat(path); err != nil {
		return failed(err, path)
	}
	if recursive {
		err = os.RemoveAll(path)
	} else {
		err = os.Remove(path)
	}
	if errors.Is(err, syscall.ENOTEMPTY) {
		return innerdock.Errorf(innerdock.CodeConflict, "%s is a directory that is not empty; use recursive=true", path)
	}
	return failed(err, path)
}

// Info describes a file; a symlink is described itself.
func (t Tree) Info(path string) (innerdock.FileInfo, error) {
	path, err := t.resolve(path)
	if err != nil {
		return innerdock.FileInfo{}, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return innerdock.FileInfo{}, failed(err, path)
	}
	return describe(filepath.Clean(path), info), nil
}

// List describes the entries of a directory, sorted by name.
func (t Tree) List(path string) ([]innerdock.FileInfo, error) {
	path, err := t.resolve(path)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, failed(err, path)
	}
	if len(entries) > MaxList {
		return nil, innerdock.Errorf(innerdock.CodeTooLarge, "%s has %d entries; at most %d can be listed", path, len(entries), MaxList)
	}
	list := make([]innerdock.FileInfo, 0, len(entries))
	for _, e := range entries {
		if info, err := e.Info(); err == nil { // else it is gone by now
			list = append(list, describe(filepath.Join(path, e.Name()), info))
		}
	}
	return list, nil
}

// MakeDir makes a directory and its parents. One that is there stays, with mode
// if that is given.
func (t Tree) MakeDir(path string, mode *fs.FileMode) (innerdock.FileInfo, error) {
	path, err := t.resolve(path)
	if err != nil {
		return innerdock.FileInfo{}, err
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return innerdock.FileInfo{}, failed(err, path)
	}
	if mode != nil {
		if err := os.Chmod(path, *mode); err != nil {
			return innerdock.FileInfo{}, failed(err, path)
		}
	}
	return t.Info(path)
}

func describe(path string, info fs.FileInfo) innerdock.FileInfo {
	f := innerdock.FileInfo{Name: filepath.Base(path), Path: path, Size: info.Size(), Modified: info.ModTime(), Type: "other"}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		f.Mode = fmt.Sprintf("%04o", st.Mode&0o7777)
		f.UID, f.GID = int(st.Uid), int(st.Gid)
	}
	switch {
	case info.Mode().IsRegular():
		f.Type = "file"
	case info.IsDir():
		f.Type = "directory"
	case info.Mode()&fs.ModeSymlink != 0:
		f.Type = "symlink"
		f.Target, _ = os.Readlink(path)
	}
	return f
}

// failed says what an error of the file system means to the caller.
func failed(err error, path string) error {
	if err == nil {
		return nil
	}
	if known := (*innerdock.Error)(nil); errors.As(err, &known) {
		return known
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return innerdock.Internal(err, "working on "+path)
	}
	switch errno {
	case syscall.ENOENT:
		return innerdock.Errorf(innerdock.CodeNotFound, "%s does not exist in the sandbox", path)
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM:
		return innerdock.Errorf(innerdock.CodeExhausted, "%s: %w", path, errno)
	case syscall.EEXIST, syscall.EBUSY, syscall.ETXTBSY:
		return innerdock.Errorf(innerdock.CodeConflict, "%s: %w", path, errno)
	case syscall.EIO:
		return innerdock.Internal(err, "working on "+path)
	}
	return innerdock.Errorf(innerdock.CodeInvalid, "%s: %w", path, errno)
}
