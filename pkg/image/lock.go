package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/innerdock/innerdock"
)

// lockPoll is how often a lock that somebody else holds is tried again: flock
// has no event to wait for that a context could interrupt.
const lockPoll = 50 * time.Millisecond

// fileLock is a lock among all goroutines and processes that use the store. The
// kernel lets it go when its holder dies.
type fileLock struct{ file *os.File }

// lock waits for the exclusive lock on one of the store's keys.
func (s *Store) lock(ctx context.Context, key string, onWait func()) (*fileLock, error) {
	return lockFile(ctx, filepath.Join(s.dir, "locks", key), onWait)
}

// lockFile waits for an exclusive lock. onWait, which may be nil, is called
// once when somebody else holds it.
func lockFile(ctx context.Context, path string, onWait func()) (*fileLock, error) {
	for {
		l, err := tryLock(path)
		if err == nil {
			return l, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, diskError(err, "locking the image store")
		}
		if onWait != nil {
			onWait()
			onWait = nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(lockPoll):
		}
	}
}

// tryLock takes the lock file at path, or fails with EWOULDBLOCK.
func tryLock(path string) (*fileLock, error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if err := flock(f, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			_ = f.Close()
			return nil, err
		}
		if same(f, path) {
			return &fileLock{f}, nil
		}
		_ = f.Close() // its holder removed it while we waited: make it anew
	}
}

// unlock removes the lock file, so that locks do not pile up, and lets it go.
func (l *fileLock) unlock() {
	_ = os.Remove(l.file.Name()) // a file that stays is no harm
	_ = l.file.Close()
}

func flock(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// same reports whether path still names the open file f.
func same(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// use marks the store's blobs as in use until the function it returns is
// called: see sweepBlobs.
func (s *Store) use() (release func(), err error) {
	f, err := os.Open(filepath.Join(s.dir, "blobs"))
	if err != nil {
		return nil, innerdock.Internal(err, "opening the image store")
	}
	if err := flock(f, syscall.LOCK_SH); err != nil {
		_ = f.Close()
		return nil, innerdock.Internal(err, "locking the image store")
	}
	return func() { _ = f.Close() }, nil
}
