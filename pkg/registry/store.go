package registry

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/innerdock/innerdock"
)

const (
	refAnnotation    = "org.opencontainers.image.ref.name"
	seededAnnotation = "io.innerdock.seeded"
	maxTags          = 4096 // pulled ones; the oldest go first
)

// store is an OCI image layout with a limit. Every change is one rename, so a
// process that dies leaves the state before or after it.
type store struct {
	dir  string
	max  int64
	lock *os.File

	mu     sync.Mutex
	index  v1.IndexManifest
	blobs  map[string]*blob // by digest
	pinned map[string]bool  // digests that seeded images need, and that Seed is storing
	size   int64            // of the blobs that are not pinned
}

type blob struct {
	size int64
	used time.Time
}

func openStore(dir string, limit int64) (*store, error) {
	s := &store{dir: dir, max: limit}
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o700); err != nil {
		return nil, innerdock.Internal(err, "opening the image cache")
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, innerdock.Internal(err, "opening the image cache")
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, innerdock.Errorf(innerdock.CodeConflict, "the image cache %s is in use by another process", dir)
	}
	s.lock = lock
	if err := s.load(); err != nil {
		_ = lock.Close()
		return nil, innerdock.Internal(err, "reading the image cache "+dir)
	}
	return s, nil
}

func (s *store) close() error { return s.lock.Close() }

func (s *store) load() error {
	if err := os.RemoveAll(s.incoming()); err != nil {
		return err
	}
	if err := os.MkdirAll(s.incoming(), 0o700); err != nil {
		return err
	}
	if err := s.write(filepath.Join(s.dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	s.index = v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	raw, err := os.ReadFile(filepath.Join(s.dir, "index.json"))
	if err == nil {
		err = json.Unmarshal(raw, &s.index)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.scan()
}

// scan learns which blobs are there.
func (s *store) scan() error {
	s.blobs = map[string]*blob{}
	entries, err := os.ReadDir(filepath.Join(s.dir, "blobs", "sha256"))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			return err
		}
		s.blobs["sha256:"+entry.Name()] = &blob{size: info.Size(), used: info.ModTime()}
	}
	s.repin()
	return nil
}

func (s *store) incoming() string { return filepath.Join(s.dir, "incoming") }

func (s *store) path(digest string) string {
	return filepath.Join(s.dir, "blobs", "sha256", strings.TrimPrefix(digest, "sha256:"))
}

// write replaces a file of the layout as one step.
func (s *store) write(path string, content []byte) error {
	file, err := s.temp()
	if err != nil {
		return err
	}
	if _, err := file.Write(content); err != nil {
		discard(file)
		return err
	}
	return publish(file, path)
}

// publish makes a complete temporary file durable under its final name. The file
// is closed in any case, and gone if there is an error.
func publish(file *os.File, path string) error {
	err := errors.Join(file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		discard(file)
	}
	return err
}

// open returns a blob, or fs.ErrNotExist.
func (s *store) open(digest string) (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, ok := s.blobs[digest]
	if !ok {
		return nil, fs.ErrNotExist
	}
	file, err := os.Open(s.path(digest))
	if err != nil {
		s.forget(digest) // removed behind our back
		return nil, err
	}
	if now := time.Now(); now.Sub(found.used) > time.Minute {
		found.used = now
		_ = os.Chtimes(file.Name(), now, now) // only the order of removal depends on it
	}
	return file, nil
}

// read returns a small blob whole.
func (s *store) read(digest string) ([]byte, error) {
	file, err := s.open(digest)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	content, err := io.ReadAll(io.LimitReader(file, maxManifest+1))
	if err == nil && len(content) > maxManifest {
		err = errTooLarge
	}
	return content, err
}

// temp returns a file to write into, for commit, publish or discard.
func (s *store) temp() (*os.File, error) { return os.CreateTemp(s.incoming(), "new-") }

func discard(file *os.File) {
	_ = file.Close()
	_ = os.Remove(file.Name())
}

// commit takes a temporary file whose content the caller has checked against
// digest. The file is closed in any case, and gone if there is an error.
func (s *store) commit(file *os.File, digest string) error {
	info, err := file.Stat()
	if err != nil {
		discard(file)
		return err
	}
	if err := publish(file, s.path(digest)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(digest)
	s.blobs[digest] = &blob{size: info.Size(), used: time.Now()}
	if !s.pinned[digest] {
		s.size += info.Size()
	}
	s.shrink(digest)
	return nil
}

// put stores content and returns its digest.
func (s *store) put(content []byte) (string, error) {
	sum := sha256.Sum256(content)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	if s.has(digest) {
		return digest, nil
	}
	file, err := s.temp()
	if err != nil {
		return "", err
	}
	if _, err := file.Write(content); err != nil {
		discard(file)
		return "", err
	}
	return digest, s.commit(file, digest)
}

// has tells whether a blob is there.
func (s *store) has(digest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.blobs[digest]
	return ok
}

// forget drops the record of a blob. Call with mu held.
func (s *store) forget(digest string) {
	if old, ok := s.blobs[digest]; ok && !s.pinned[digest] {
		s.size -= old.size
	}
	delete(s.blobs, digest)
}

// shrink removes what was not used for longest until the limit holds, and never
// keep, which has just come. Call with mu held.
func (s *store) shrink(keep string) {
	if s.size <= s.max {
		return
	}
	var old []string
	for digest := range s.blobs {
		if digest != keep && !s.pinned[digest] {
			old = append(old, digest)
		}
	}
	sort.Slice(old, func(i, j int) bool { return s.blobs[old[i]].used.Before(s.blobs[old[j]].used) })
	for _, digest := range old {
		if s.size <= s.max {
			return
		}
		if err := os.Remove(s.path(digest)); err == nil || errors.Is(err, fs.ErrNotExist) {
			s.forget(digest)
		}
	}
}
