package registry

import (
	"encoding/json"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// resolve returns the digest that a tag had last, of what was pulled or else of
// what was seeded. The manifest itself is in the store.
func (s *store) resolve(ref string) (digest string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seeded := range []bool{false, true} {
		for _, m := range s.index.Manifests {
			if m.Annotations[refAnnotation] != ref || isSeeded(m) != seeded {
				continue
			}
			if _, there := s.blobs[m.Digest.String()]; there {
				return m.Digest.String(), true
			}
		}
	}
	return "", false
}

// seeded tells whether a tag was seeded, and all that it needs is there.
func (s *store) seeded(ref string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.index.Manifests {
		if m.Annotations[refAnnotation] == ref && isSeeded(m) {
			for _, digest := range s.needs(m.Digest.String()) {
				if s.blobs[digest] == nil {
					return false
				}
			}
			return true
		}
	}
	return false
}

func isSeeded(m v1.Descriptor) bool { return m.Annotations[seededAnnotation] != "" }

// tag records what a tag means. The manifest must be in the store.
func (s *store) tag(ref, digest string, content []byte, seeded bool) error {
	hash, err := v1.NewHash(digest)
	if err != nil {
		return err
	}
	entry := v1.Descriptor{
		MediaType: types.MediaType(mediaType(content)), Size: int64(len(content)), Digest: hash,
		Annotations: map[string]string{refAnnotation: ref},
	}
	if seeded {
		entry.Annotations[seededAnnotation] = "true"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	kept, pulled := make([]v1.Descriptor, 0, len(s.index.Manifests)+1), 0
	for _, m := range s.index.Manifests {
		same := m.Annotations[refAnnotation] == ref && isSeeded(m) == seeded
		if same && m.Digest == hash {
			return nil
		}
		if same {
			continue
		}
		if !isSeeded(m) {
			pulled++
		}
		kept = append(kept, m)
	}
	if pulled >= maxTags {
		kept = dropOldest(kept)
	}
	next := s.index
	next.Manifests = append(kept, entry)
	raw, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if err := s.write(filepath.Join(s.dir, "index.json"), raw); err != nil {
		return err
	}
	s.index = next
	if seeded {
		s.repin()
	}
	return nil
}

// dropOldest removes the first tag that was pulled.
func dropOldest(all []v1.Descriptor) []v1.Descriptor {
	for i, m := range all {
		if !isSeeded(m) {
			return append(all[:i:i], all[i+1:]...)
		}
	}
	return all
}

// pin keeps digests from being removed until the next repin.
func (s *store) pin(digests []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, digest := range digests {
		s.pinned[digest] = true
	}
	s.measure()
}

// repin finds again what seeded images need. Call with mu held, or before anybody
// else knows the store.
func (s *store) repin() {
	s.pinned = map[string]bool{}
	for _, m := range s.index.Manifests {
		if isSeeded(m) {
			for _, digest := range s.needs(m.Digest.String()) {
				s.pinned[digest] = true
			}
		}
	}
	s.measure()
}

// needs are the digests that an image consists of, its own first.
func (s *store) needs(digest string) []string {
	all := []string{digest}
	raw, err := os.ReadFile(s.path(digest))
	var manifest v1.Manifest
	if err != nil || json.Unmarshal(raw, &manifest) != nil {
		return all
	}
	all = append(all, manifest.Config.Digest.String())
	for _, layer := range manifest.Layers {
		all = append(all, layer.Digest.String())
	}
	return all
}

// measure adds up what the limit is for.
func (s *store) measure() {
	s.size = 0
	for digest, b := range s.blobs {
		if !s.pinned[digest] {
			s.size += b.size
		}
	}
}
