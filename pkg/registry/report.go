package registry

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/innerdock/innerdock"
)

// Usage says what the store holds.
func (c *Cache) Usage() innerdock.RegistryUsage {
	usage := c.store.usage()
	usage.MaxAge = int64(c.maxAge / time.Second)
	usage.Served, usage.Downloaded = c.served.Load(), c.downloaded.Load()
	for _, u := range c.upstream {
		state := innerdock.RegistryUpstream{URL: u.base.String(), State: "ok"}
		if u.away() {
			state.State = "unreachable"
		} else if u.quota() > 0 {
			state.State = "limited"
		}
		usage.Upstreams = append(usage.Upstreams, state)
	}
	return usage
}

func (s *store) usage() innerdock.RegistryUsage {
	s.mu.Lock()
	defer s.mu.Unlock()
	usage := innerdock.RegistryUsage{Blobs: len(s.blobs), MaxBytes: s.max, CachedBytes: s.size}
	for digest, b := range s.blobs {
		switch {
		case s.pinned[digest] != nil:
			usage.SeededBytes += b.size
		case b.readers == 0:
			usage.ReclaimableBytes += b.size
		}
	}
	return usage
}

// Images are the tags in the store, by name.
func (c *Cache) Images() []innerdock.RegistryImage {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	all := []innerdock.RegistryImage{}
	for _, m := range c.store.index.Manifests {
		digest := m.Digest.String()
		found := c.store.blobs[digest]
		if found == nil {
			continue
		}
		image := innerdock.RegistryImage{
			Name:   strings.TrimPrefix(strings.TrimPrefix(m.Annotations[refAnnotation], refPrefix), "library/"),
			Digest: digest, Seeded: isSeeded(m), UsedAt: found.used.UTC().Truncate(time.Second),
		}
		counted := map[string]bool{}
		for _, part := range c.store.needs(digest) {
			if b := c.store.blobs[part]; b != nil && !counted[part] {
				counted[part] = true
				image.Bytes += b.size
			}
		}
		all = append(all, image)
	}
	slices.SortFunc(all, func(a, b innerdock.RegistryImage) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Prune removes what no sandbox has asked for in the time before now that unused
// names; never a seeded image, and nothing that is being sent.
func (c *Cache) Prune(_ context.Context, unused time.Duration) (innerdock.RegistryPruned, error) {
	blobs, bytes := c.store.prune(time.Now().Add(-unused))
	if err := c.store.sweep(); err != nil {
		return innerdock.RegistryPruned{}, innerdock.Internal(err, "removing the tags of what was removed")
	}
	return innerdock.RegistryPruned{Blobs: blobs, Bytes: bytes}, nil
}
