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

// store is an OCI image layout with a limit, and beside it a mark for each blob
// and repository in which it is public. Every change is one rename, so a process
// that dies leaves the state before or after it.
type store struct {
	dir  string
	max  int64
	lock *os.File

	mu       sync.Mutex
	index    v1.IndexManifest
	blobs    map[string]*blob           // by digest
	pinned   map[string]map[string]bool // digests that seeded images need, and in which repositories
	size     int64                      // of the blobs that are not pinned
	reserved int64                      // for what is on its way
}

// blob is what the store knows of a file. Its fields are guarded by store.mu.
type blob struct {
	size    int64
	used    time.Time
	public  map[string]bool // the repositories in which upstream has shown it
	readers int

	check    sync.Mutex // held while the content is checked
	verified time.Time  // when it last was
	stamp    stamp      // and of which file
}

// stamp tells a file from one that was changed.
type stamp struct {
	size     int64
	modified time.Time
}

func stampOf(info fs.FileInfo) stamp { return stamp{info.Size(), info.ModTime()} }

// verifyEvery is how long the content of a blob that was right is taken for right
// while its file does not change.
const verifyEvery = time.Hour

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

// load reads what is there. It writes nothing that is not missing, so that it
// works on a full disk.
func (s *store) load() error {
	if err := s.clearIncoming(); err != nil {
		return err
	}
	mark := filepath.Join(s.dir, "oci-layout")
	if _, err := os.Stat(mark); errors.Is(err, fs.ErrNotExist) {
		if err := s.write(mark, []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
			return err
		}
	}
	if err := s.loadIndex(); err != nil {
		return err
	}
	if err := s.scan(); err != nil {
		return err
	}
	s.repin()
	return s.loadGrants()
}

// clearIncoming removes what an earlier process left half done.
func (s *store) clearIncoming() error {
	if err := os.MkdirAll(s.incoming(), 0o700); err != nil {
		return err
	}
	left, err := os.ReadDir(s.incoming())
	for _, entry := range left {
		err = errors.Join(err, os.RemoveAll(filepath.Join(s.incoming(), entry.Name())))
	}
	return err
}

// loadIndex reads the tags. An index that cannot be read is put aside: the
// tags come again, from upstream.
func (s *store) loadIndex() error {
	empty := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	s.index = empty
	path := filepath.Join(s.dir, "index.json")
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, &s.index); err != nil {
		s.index = empty
		return os.Rename(path, path+".broken")
	}
	return nil
}

// scan learns which blobs are there.
func (s *store) scan() error {
	s.blobs = map[string]*blob{}
	entries, err := os.ReadDir(filepath.Join(s.dir, "blobs", "sha256"))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		digest := "sha256:" + entry.Name()
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if info.Mode().IsRegular() && digestForm.MatchString(digest) {
			s.blobs[digest] = &blob{size: info.Size(), used: usedAt(info), public: map[string]bool{}}
		}
	}
	return nil
}

// usedAt is when a blob was last read, as touch noted it.
func usedAt(info fs.FileInfo) time.Time {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(stat.Atim.Sec, stat.Atim.Nsec)
	}
	return info.ModTime()
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

// content is a blob that is being read: it is not removed to make room.
type content struct {
	*os.File
	done func()
}

func (c content) Close() error {
	c.done()
	return c.File.Close()
}

// open returns a blob, or fs.ErrNotExist. The content is checked against the
// digest from time to time; a wrong one is removed, and is not there then.
func (s *store) open(digest string) (content, error) {
	s.mu.Lock()
	found, ok := s.blobs[digest]
	if !ok {
		s.mu.Unlock()
		return content{}, fs.ErrNotExist
	}
	file, err := os.Open(s.path(digest))
	if err != nil {
		s.forget(digest) // removed behind our back
		s.mu.Unlock()
		return content{}, err
	}
	s.touch(found, file.Name())
	found.readers++
	s.mu.Unlock()
	c := content{file, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		found.readers--
	}}
	if err := s.verify(found, file, digest); err != nil {
		_ = c.Close()
		return content{}, err
	}
	return c, nil
}

// touch notes that a blob is used now. Call with mu held.
func (s *store) touch(b *blob, path string) {
	if now := time.Now(); now.Sub(b.used) > time.Minute {
		b.used = now
		_ = os.Chtimes(path, now, time.Time{}) // only the order of removal depends on it
	}
}

// verify checks a blob's content, unless that was done lately.
func (s *store) verify(b *blob, file *os.File, digest string) error {
	b.check.Lock()
	defer b.check.Unlock()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if b.stamp == stampOf(info) && time.Since(b.verified) < verifyEvery {
		return nil
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return s.drop(b, digest, err)
	}
	if "sha256:"+hex.EncodeToString(sum.Sum(nil)) != digest {
		return s.drop(b, digest, errCorrupt)
	}
	b.verified, b.stamp = time.Now(), stampOf(info)
	_, err = file.Seek(0, io.SeekStart)
	return err
}

// drop removes a blob that cannot be read or is wrong, if it is still that one.
func (s *store) drop(b *blob, digest string, why error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blobs[digest] == b {
		_ = os.Remove(s.path(digest))
		s.forget(digest)
	}
	return errors.Join(fs.ErrNotExist, why)
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
	fresh := &blob{size: info.Size(), used: time.Now(), public: map[string]bool{},
		verified: time.Now(), stamp: stampOf(info)}
	if old, ok := s.blobs[digest]; ok {
		fresh.public = old.public
		s.uncount(digest, old)
	}
	s.blobs[digest] = fresh
	if s.pinned[digest] == nil {
		s.size += info.Size()
	}
	s.shrink(digest, s.max)
	return nil
}

// put stores content and returns its digest.
func (s *store) put(content []byte) (string, error) {
	digest := digestOf(content)
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

// forget drops the record of a blob, and the marks of where it is public. Call
// with mu held.
func (s *store) forget(digest string) {
	old, ok := s.blobs[digest]
	if !ok {
		return
	}
	s.uncount(digest, old)
	for repository := range old.public {
		_ = os.Remove(s.mark(repository, digest)) // what is left of it is removed by the next load
	}
	delete(s.blobs, digest)
}

// uncount takes a blob out of the sum that the limit is for. Call with mu held.
func (s *store) uncount(digest string, b *blob) {
	if s.pinned[digest] == nil {
		s.size -= b.size
	}
}
