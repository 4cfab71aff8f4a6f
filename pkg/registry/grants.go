package registry

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A grant says that upstream has shown a blob, in a repository, to the cache.
// The mark of it is an empty file, repositories/NAME/_public/HEX; a component of
// a repository's name never begins with an underscore.

const grantDir = "_public"

func (s *store) mark(repository, digest string) string {
	return filepath.Join(s.grantsOf(repository), strings.TrimPrefix(digest, "sha256:"))
}

func (s *store) grantsOf(repository string) string {
	return filepath.Join(s.dir, "repositories", filepath.FromSlash(repository), grantDir)
}

// loadGrants reads the marks, and removes those of blobs that are gone.
func (s *store) loadGrants() error {
	root := filepath.Join(s.dir, "repositories")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		repository, ok := strings.CutSuffix(filepath.ToSlash(strings.TrimPrefix(filepath.Dir(path), root+"/")), "/"+grantDir)
		found := s.blobs["sha256:"+entry.Name()]
		if !ok || found == nil {
			return os.Remove(path)
		}
		found.public[repository] = true
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// grant notes that upstream has shown a blob in a repository.
func (s *store) grant(repository, digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.blobs[digest]
	if found == nil || found.public[repository] {
		return
	}
	found.public[repository] = true
	// A mark that cannot be made, on a full disk, is one that upstream is asked
	// for again by the next server.
	if os.MkdirAll(s.grantsOf(repository), 0o700) == nil {
		_ = os.WriteFile(s.mark(repository, digest), nil, 0o600)
	}
}

// granted tells whether upstream has shown a blob in a repository, and seeded
// whether it belongs to an image that was seeded there.
func (s *store) granted(repository, digest string) (public, seeded bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.blobs[digest]
	return found != nil && found.public[repository], found != nil && s.pinned[digest][repository]
}

// revoke takes back what upstream refuses now: a blob in a repository, or with
// the digest "" all of the repository.
func (s *store) revoke(repository, digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if digest != "" {
		if found := s.blobs[digest]; found != nil {
			delete(found.public, repository)
		}
		_ = os.Remove(s.mark(repository, digest))
		return
	}
	for _, b := range s.blobs {
		delete(b.public, repository)
	}
	_ = os.RemoveAll(s.grantsOf(repository))
}
