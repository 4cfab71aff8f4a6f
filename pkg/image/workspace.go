package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/durable"
)

// workspace is a directory for work in progress, below the store's tmp. It is
// locked while its maker lives.
type workspace struct {
	dir  string
	lock *os.File
}

// workspace makes one. Only root can enter it: what is unpacked there may hold
// set-user-ID programs.
func (s *Store) workspace(kind string) (*workspace, error) {
	tmp, err := s.lockTmp()
	if err != nil {
		return nil, err
	}
	defer tmp.Close()
	dir, err := os.MkdirTemp(tmp.Name(), kind+"-")
	if err != nil {
		return nil, diskError(err, "making a temporary directory")
	}
	lock, err := os.Open(dir)
	if err != nil {
		return nil, diskError(err, "making a temporary directory")
	}
	if err := flock(lock, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, innerdock.Internal(err, "locking a temporary directory")
	}
	return &workspace{dir, lock}, nil
}

// working gives work a workspace, and keeps others from sweeping the layers that it
// brings into the store.
func (s *Store) working(kind string, work func(ws *workspace) (record, error)) (record, error) {
	release, err := s.use()
	if err != nil {
		return record{}, err
	}
	defer release()
	if err := s.checkRoom(); err != nil {
		return record{}, err
	}
	ws, err := s.workspace(kind)
	if err != nil {
		return record{}, err
	}
	r, err := work(ws)
	if failure := ws.remove(); err == nil && failure != nil {
		err = innerdock.Internal(failure, "removing a temporary directory")
	}
	return r, err
}

func (w *workspace) path(name string) string { return filepath.Join(w.dir, name) }

// remove deletes the workspace with all that is in it.
func (w *workspace) remove() error {
	err := os.RemoveAll(w.dir)
	return errors.Join(err, w.lock.Close())
}

// sweepTmp removes the workspaces whose makers are dead, and returns how many.
func (s *Store) sweepTmp() (int, error) {
	tmp, err := s.lockTmp()
	if err != nil {
		return 0, err
	}
	defer tmp.Close()
	names, err := tmp.Readdirnames(-1)
	if err != nil {
		return 0, innerdock.Internal(err, "listing temporary directories")
	}
	swept := 0
	for _, name := range names {
		gone, err := removeAbandoned(filepath.Join(tmp.Name(), name))
		if err != nil {
			return swept, innerdock.Internal(err, "removing an abandoned build")
		}
		if gone {
			swept++
		}
	}
	return swept, nil
}

// lockTmp keeps workspaces from being made while others are swept: between its
// making and its lock, a new one looks abandoned.
func (s *Store) lockTmp() (*os.File, error) {
	tmp, err := os.Open(filepath.Join(s.dir, "tmp"))
	if err != nil {
		return nil, innerdock.Internal(err, "opening the image store")
	}
	if err := flock(tmp, syscall.LOCK_EX); err != nil {
		_ = tmp.Close()
		return nil, innerdock.Internal(err, "locking the image store")
	}
	return tmp, nil
}

func removeAbandoned(path string) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // its maker is done with it
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := flock(f, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return false, nil // its maker lives
	}
	return true, os.RemoveAll(path)
}

// diskError gives an error of writing to the store its code.
func diskError(err error, doing string) error {
	var coded *innerdock.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &coded):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return innerdock.Errorf(innerdock.CodeExhausted, "the disk is full; remove images that are not used, or make room in the data directory, and try again")
	}
	return innerdock.Internal(err, doing)
}

// writeFile writes a small file so that it is there whole or not at all.
func (s *Store) writeFile(path string, data []byte) error {
	ws, err := s.workspace("file")
	if err != nil {
		return err
	}
	err = writeSynced(ws.path("file"), data)
	if err == nil {
		err = durable.Publish(ws.path("file"), path)
	}
	return diskError(errors.Join(err, ws.remove()), "writing to the image store")
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
