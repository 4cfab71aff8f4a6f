package registry

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// resolve returns the digest that a tag had when it was last pulled, or when it
// was seeded. The manifest itself is in the store.
func (s *store) resolve(ref string, seeded bool) (digest string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.index.Manifests {
		if m.Annotations[refAnnotation] == ref && isSeeded(m) == seeded {
			_, there := s.blobs[m.Digest.String()]
			return m.Digest.String(), there
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

// refPrefix begins the full name of a tag.
const refPrefix = "docker.io/"

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
	if err := s.replaceIndex(append(kept, entry)); err != nil {
		return err
	}
	if seeded {
		s.repin()
	}
	return nil
}

// untag forgets the tags, of what was pulled, that gone names.
func (s *store) untag(gone func(m v1.Descriptor) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := make([]v1.Descriptor, 0, len(s.index.Manifests))
	for _, m := range s.index.Manifests {
		if isSeeded(m) || !gone(m) {
			kept = append(kept, m)
		}
	}
	if len(kept) == len(s.index.Manifests) {
		return nil
	}
	return s.replaceIndex(kept)
}

// untagPulled forgets a tag that was pulled, or all of its repository.
func (s *store) untagPulled(route route, whole bool) error {
	return s.untag(func(m v1.Descriptor) bool {
		repository, tag := cutTag(m.Annotations[refAnnotation])
		return repository == route.repository && (whole || tag == route.tag)
	})
}

// sweep forgets the tags whose manifests are gone.
func (s *store) sweep() error {
	return s.untag(func(m v1.Descriptor) bool { return s.blobs[m.Digest.String()] == nil })
}

// replaceIndex writes the tags. Call with mu held.
func (s *store) replaceIndex(manifests []v1.Descriptor) error {
	next := s.index
	next.Manifests = manifests
	raw, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if err := s.write(filepath.Join(s.dir, "index.json"), raw); err != nil {
		return err
	}
	s.index = next
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

// pin keeps digests of an image that is being seeded in a repository from being
// removed until the next repin.
func (s *store) pin(repository string, digests []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, digest := range digests {
		s.addPin(repository, digest)
	}
	s.measure()
}

func (s *store) addPin(repository, digest string) {
	if s.pinned[digest] == nil {
		s.pinned[digest] = map[string]bool{}
	}
	s.pinned[digest][repository] = true
}

// repin finds again what seeded images need. Call with mu held, or before anybody
// else knows the store.
func (s *store) repin() {
	s.pinned = map[string]map[string]bool{}
	for _, m := range s.index.Manifests {
		if isSeeded(m) {
			for _, digest := range s.needs(m.Digest.String()) {
				s.addPin(repositoryOf(m), digest)
			}
		}
	}
	s.measure()
}

// repositoryOf is the repository of a tag: library/nginx.
func repositoryOf(m v1.Descriptor) string {
	repository, _ := cutTag(m.Annotations[refAnnotation])
	return repository
}

// cutTag takes docker.io/library/nginx:latest apart.
func cutTag(ref string) (repository, tag string) {
	ref = strings.TrimPrefix(ref, refPrefix)
	i := strings.LastIndexByte(ref, ':')
	if i < 0 {
		return ref, ""
	}
	return ref[:i], ref[i+1:]
}

// needs are the digests that an image consists of, its own first; of an index
// those of the images in it whose manifests are there. An index in an index is
// not followed.
func (s *store) needs(digest string) []string {
	all, children := s.members(digest)
	for _, child := range children {
		if s.blobs[child] != nil {
			image, _ := s.members(child)
			all = append(all, image...)
		}
	}
	return all
}

// members are a manifest's own digest, those of its configuration and layers,
// and those of its images. Call with mu held.
func (s *store) members(digest string) (all, children []string) {
	all = []string{digest}
	if b := s.blobs[digest]; b == nil || b.size > maxManifest {
		return all, nil
	}
	raw, err := os.ReadFile(s.path(digest))
	var manifest struct {
		Config    v1.Descriptor   `json:"config"`
		Layers    []v1.Descriptor `json:"layers"`
		Manifests []v1.Descriptor `json:"manifests"`
	}
	if err != nil || json.Unmarshal(raw, &manifest) != nil {
		return all, nil
	}
	for _, blob := range append(manifest.Layers, manifest.Config) {
		if blob.Digest.Hex != "" {
			all = append(all, blob.Digest.String())
		}
	}
	for _, image := range manifest.Manifests {
		children = append(children, image.Digest.String())
	}
	return all, children
}

// measure adds up what the limit is for.
func (s *store) measure() {
	s.size = 0
	for digest, b := range s.blobs {
		if s.pinned[digest] == nil {
			s.size += b.size
		}
	}
}
