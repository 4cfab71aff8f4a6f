package image

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/innerdock/innerdock"
)

// A pull that breaks off leaves what has come of its layers below parts/, also
// when its server is killed. The next that wants such a layer goes on there.
const (
	partsKept = 4 << 30 // bytes in all; the oldest go first
	partAge   = 24 * time.Hour
)

func (s *Store) partPath(digest string) string {
	return filepath.Join(s.dir, "parts", filepath.Base(s.blobPath(digest)))
}

// part opens what is there of a layer, for the holder of the layer's lock.
func (s *Store) part(l layer) (*blobWriter, error) {
	f, err := os.OpenFile(s.partPath(l.Digest), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, diskError(err, "writing a layer")
	}
	blob := &blobWriter{file: f, sum: sha256.New()}
	blob.size, err = io.Copy(blob.sum, f)
	if err == nil && (blob.size > l.Size || blob.size == l.Size && blob.digest() != l.Digest) {
		err = blob.reset()
	}
	if err != nil {
		blob.discard()
		return nil, diskError(err, "reading a part of a layer")
	}
	return blob, nil
}

// leave keeps what has come of a layer for another time.
func (b *blobWriter) leave() {
	if b.size == 0 {
		b.discard()
		return
	}
	_ = b.file.Close() // what is lost comes again
}

// sweepParts removes the parts of layers that are old, and the oldest of the
// others until keep bytes are left. It does not touch those that grow now.
func (s *Store) sweepParts(ctx context.Context, keep int64) error {
	entries, err := os.ReadDir(filepath.Join(s.dir, "parts"))
	if err != nil {
		return innerdock.Internal(err, "listing parts of layers")
	}
	var parts []fs.FileInfo
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil { // else it has just been completed
			parts = append(parts, info)
		}
	}
	slices.SortFunc(parts, func(a, b fs.FileInfo) int { return cmp.Compare(b.ModTime().UnixNano(), a.ModTime().UnixNano()) })
	for _, part := range parts {
		if keep -= part.Size(); keep >= 0 && time.Since(part.ModTime()) < partAge {
			continue
		}
		if err := s.removePart(part.Name()); err != nil || ctx.Err() != nil {
			return errors.Join(err, context.Cause(ctx))
		}
	}
	return nil
}

// removePart removes a part unless somebody holds the layer's lock.
func (s *Store) removePart(name string) error {
	lock, err := tryLock(s.blobLock(name))
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return diskError(err, "locking the image store")
	}
	defer lock.unlock()
	if err := os.Remove(filepath.Join(s.dir, "parts", name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return innerdock.Internal(err, "removing a part of a layer")
	}
	return nil
}
