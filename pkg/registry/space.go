package registry

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"sort"
	"syscall"
	"time"
)

// The disk is shared with the sandboxes: the cache leaves a part of it free.
const (
	freeShare = 20 // one part in so many
	maxFree   = 1 << 30
)

// reserve makes room for n bytes that are on their way: within the limit, and on
// the disk. release gives them back once the blob is stored or given up.
func (s *store) reserve(n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n+s.reserved > s.max {
		return errTooLarge
	}
	free, err := s.free()
	if err != nil {
		return err
	}
	limit := s.max - s.reserved - n
	if lack := n - free; lack > 0 {
		limit = min(limit, s.size-lack)
	}
	s.shrink("", max(limit, 0))
	if free, err = s.free(); err != nil || free < n {
		return errors.Join(errFull, err)
	}
	s.reserved += n
	return nil
}

func (s *store) release(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved -= n
}

// free is how many bytes the cache may still write.
func (s *store) free() (int64, error) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(s.dir, &fs); err != nil {
		return 0, err
	}
	total, available := int64(fs.Blocks)*fs.Bsize, int64(fs.Bavail)*fs.Bsize
	return available - min(total/freeShare, maxFree), nil
}

// shrink removes what was not used for longest until the blobs fit limit, and
// never keep, which has just come. Call with mu held.
func (s *store) shrink(keep string, limit int64) {
	if s.size <= limit {
		return
	}
	for _, digest := range s.removable(time.Unix(math.MaxInt32, 0)) {
		if s.size <= limit {
			return
		}
		if digest != keep {
			s.remove(digest)
		}
	}
}

// prune removes what was not used since before, and tells how much that was.
func (s *store) prune(before time.Time) (blobs int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, digest := range s.removable(before) {
		size := s.blobs[digest].size
		if s.remove(digest) {
			blobs, bytes = blobs+1, bytes+size
		}
	}
	return blobs, bytes
}

// removable are the blobs that were not used since before, are not pinned and
// that nobody reads, the longest unused first. Call with mu held.
func (s *store) removable(before time.Time) []string {
	var old []string
	for digest, b := range s.blobs {
		if s.pinned[digest] == nil && b.readers == 0 && b.used.Before(before) {
			old = append(old, digest)
		}
	}
	sort.Slice(old, func(i, j int) bool { return s.blobs[old[i]].used.Before(s.blobs[old[j]].used) })
	return old
}

// remove removes a blob. Call with mu held.
func (s *store) remove(digest string) bool {
	err := os.Remove(s.path(digest))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	s.forget(digest)
	return true
}
