package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/durable"
)

// layer is one layer of an image, as a blob of the store.
type layer struct {
	Digest string `json:"digest"`  // sha256:… of the blob
	DiffID string `json:"diff_id"` // sha256:… of the uncompressed archive
	Size   int64  `json:"size"`    // bytes of the blob

	MediaType types.MediaType `json:"media_type,omitempty"`
}

// blobPath is where the blob with a digest (sha256:…) is.
func (s *Store) blobPath(digest string) string {
	return filepath.Join(s.dir, "blobs", "sha256", strings.TrimPrefix(digest, "sha256:"))
}

// blobLock is the lock file of what has a name below blobs/sha256 or parts.
func (s *Store) blobLock(name string) string { return filepath.Join(s.dir, "locks", "blob-"+name) }

func (s *Store) hasBlob(l layer) bool {
	info, err := os.Stat(s.blobPath(l.Digest))
	return err == nil && info.Size() == l.Size
}

// blobWriter writes a blob beside the store and hashes it.
type blobWriter struct {
	file *os.File
	sum  hash.Hash
	size int64
}

func (w *workspace) blob() (*blobWriter, error) {
	f, err := os.CreateTemp(w.dir, "blob-")
	if err != nil {
		return nil, diskError(err, "writing a layer")
	}
	return &blobWriter{file: f, sum: sha256.New()}, nil
}

func (b *blobWriter) Write(p []byte) (int, error) {
	n, err := b.file.Write(p)
	b.sum.Write(p[:n])
	b.size += int64(n)
	return n, err
}

func (b *blobWriter) digest() string { return "sha256:" + hex.EncodeToString(b.sum.Sum(nil)) }

// reset begins the blob anew.
func (b *blobWriter) reset() error {
	b.size = 0
	b.sum.Reset()
	_, err := b.file.Seek(0, io.SeekStart)
	return diskError(errors.Join(err, b.file.Truncate(0)), "writing a layer")
}

// discard gives the blob up. After commit it does nothing that matters.
func (b *blobWriter) discard() {
	_ = b.file.Close()           // closed twice after commit
	_ = os.Remove(b.file.Name()) // renamed away after commit; else the workspace goes anyway
}

// commit puts the blob into the store under its digest.
func (b *blobWriter) commit(s *Store) error {
	if err := errors.Join(b.file.Sync(), b.file.Close()); err != nil {
		return diskError(err, "writing a layer")
	}
	return diskError(durable.Publish(b.file.Name(), s.blobPath(b.digest())), "writing a layer")
}

// makeLayer stores the archive that write writes as a layer.
func (s *Store) makeLayer(ws *workspace, write func(io.Writer) error) (layer, error) {
	blob, err := ws.blob()
	if err != nil {
		return layer{}, err
	}
	defer blob.discard()
	z, err := zstd.NewWriter(blob, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2))
	if err != nil {
		return layer{}, innerdock.Internal(err, "compressing a layer")
	}
	plain := &capped{w: z, sum: sha256.New(), left: s.limits.Bytes}
	if err := errors.Join(write(plain), z.Close()); err != nil {
		return layer{}, diskError(err, "writing a layer")
	}
	if err := blob.commit(s); err != nil {
		return layer{}, err
	}
	return layer{Digest: blob.digest(), DiffID: "sha256:" + hex.EncodeToString(plain.sum.Sum(nil)), Size: blob.size, MediaType: types.OCILayerZStd}, nil
}

// capped hashes what is written, and refuses more than left bytes.
type capped struct {
	w    io.Writer
	sum  hash.Hash
	left int64
}

func (c *capped) Write(p []byte) (int, error) {
	if c.left -= int64(len(p)); c.left < 0 {
		return 0, innerdock.Errorf(innerdock.CodeTooLarge, "what was written is more than an image may hold; remove files that it does not need, at the end of the step that made them")
	}
	c.sum.Write(p)
	return c.w.Write(p)
}

// sweepBlobs removes the blobs that no image has, unless a build is going on:
// it may have just made some. A later Remove then does it.
func (s *Store) sweepBlobs(ctx context.Context) error {
	f, err := os.Open(filepath.Join(s.dir, "blobs"))
	if err != nil {
		return innerdock.Internal(err, "opening the image store")
	}
	defer f.Close()
	if flock(f, lockExclusiveNow) != nil {
		return nil
	}
	used := map[string]bool{}
	records, err := s.records(ctx)
	if err != nil {
		return err
	}
	for _, r := range records {
		for _, l := range r.Layers {
			used[s.blobPath(l.Digest)] = true
		}
		used[s.blobPath(r.Config)], used[s.blobPath(r.Manifest)] = true, true
	}
	names, err := filepath.Glob(s.blobPath("*"))
	if err != nil {
		return innerdock.Internal(err, "listing layers")
	}
	for _, name := range names {
		if used[name] {
			continue
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return innerdock.Internal(err, "removing a layer")
		}
	}
	return nil
}
