package template

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/store"
)

// describe notes the files in dir, which are proven by that.
func (e *entry) describe(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	e.Files, e.size = nil, 0
	for _, file := range files {
		sum, info, err := hash(filepath.Join(dir, file.Name()))
		if err != nil {
			return err
		}
		e.Files = append(e.Files, store.TemplateFile{Name: file.Name(), Size: info.Size(), SHA256: sum})
		e.size += info.Size()
		e.proven[file.Name()] = info
	}
	return nil
}

// prove compares the files in dir with what they were. Their content is read
// once; afterwards their identity, size and times tell.
func (e *entry) prove(dir string) error {
	e.proving.Lock()
	defer e.proving.Unlock()
	for _, file := range e.Files {
		path := filepath.Join(dir, file.Name)
		info, err := os.Lstat(path)
		if err != nil {
			return innerdock.Errorf(innerdock.CodeInternal, "%s of the template cannot be read: %w", file.Name, err)
		}
		if same(info, e.proven[file.Name]) {
			continue
		}
		delete(e.proven, file.Name)
		if !info.Mode().IsRegular() || info.Size() != file.Size {
			return innerdock.Errorf(innerdock.CodeInternal, "%s of the template has %d bytes instead of %d", file.Name, info.Size(), file.Size)
		}
		sum, info, err := hash(path)
		if err != nil {
			return innerdock.Errorf(innerdock.CodeInternal, "%s of the template cannot be read: %w", file.Name, err)
		}
		if sum != file.SHA256 {
			return innerdock.Errorf(innerdock.CodeInternal, "%s of the template is not what was written", file.Name)
		}
		e.proven[file.Name] = info
	}
	return nil
}

// same reports whether a file has not been written to since it was proven. The
// time of its inode's change is the kernel's to set.
func same(info, proven os.FileInfo) bool {
	if proven == nil || !os.SameFile(info, proven) || info.Size() != proven.Size() {
		return false
	}
	now, ok := info.Sys().(*syscall.Stat_t)
	then, also := proven.Sys().(*syscall.Stat_t)
	return ok && also && now.Ctim == then.Ctim && now.Mtim == then.Mtim
}

// hash reads a file; the information is of before, so that a later write shows.
func hash(path string) (sum string, info os.FileInfo, err error) {
	file, err := os.Open(path)
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = file.Close() }()
	if info, err = file.Stat(); err != nil {
		return "", nil, err
	}
	h := sha256.New()
	if _, err := io.Copy(h, file); err != nil {
		return "", nil, err
	}
	return hex.EncodeToString(h.Sum(nil)), info, nil
}
