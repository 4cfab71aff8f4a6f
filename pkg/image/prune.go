package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/innerdock/innerdock"
)

// justUsed is how long what was used stays whatever is pruned: between asking for
// an image and a sandbox's having its file open lies a moment, also for servers
// that share the store.
const justUsed = 10 * time.Minute

// touch notes that an image is used now. If it fails the image looks older than
// it is.
func (s *Store) touch(id string) {
	now := time.Now()
	_ = os.Chtimes(filepath.Join(s.imageDir(id), "image.json"), now, now)
}

// Collect prunes now and at each interval, until ctx is done.
func (s *Store) Collect(ctx context.Context, every time.Duration, what innerdock.ImagePrune) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		pruned, err := s.Prune(ctx, what)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.log.Warn("images could not be pruned", "err", err)
		case len(pruned.Images) > 0:
			s.log.Info("images pruned", "count", len(pruned.Images), "bytes", pruned.Freed)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// Prune removes images that nothing needs: those that were not used for a
// time, and of the others the least recently used until the rest is small
// enough; all of them if neither is asked for.
func (s *Store) Prune(ctx context.Context, what innerdock.ImagePrune) (innerdock.ImagesPruned, error) {
	pruned := innerdock.ImagesPruned{Images: []innerdock.Image{}}
	records, err := s.records(ctx)
	if err != nil {
		return pruned, err
	}
	used, err := s.inUse(ctx)
	if err != nil {
		return pruned, err
	}
	held := holdings{count: map[string]int{}}
	files := map[string]map[string]int64{} // by image
	for _, r := range records {
		files[r.Image.ID] = s.files(r)
		held.add(files[r.Image.ID])
	}
	slices.SortFunc(records, func(a, b record) int { return a.Image.UsedAt.Compare(b.Image.UsedAt) })
	now := time.Now()
	for _, r := range records {
		age := now.Sub(r.Image.UsedAt)
		old := what.UnusedFor > 0 && age.Seconds() > what.UnusedFor
		many := what.Keep > 0 && held.total > what.Keep
		if used[r.Image.ID] != "" || age < justUsed || !old && !many && (what.UnusedFor > 0 || what.Keep > 0) {
			continue
		}
		if !what.DryRun {
			switch err := s.take(r.Image.ID); {
			case innerdock.CodeOf(err) == innerdock.CodeImageNotFound:
				continue // somebody else has removed it
			case err != nil:
				return pruned, err
			}
		}
		pruned.Freed += held.remove(files[r.Image.ID])
		pruned.Images = append(pruned.Images, r.Image)
	}
	if what.DryRun {
		return pruned, nil
	}
	keep := int64(0)
	if what.UnusedFor > 0 || what.Keep > 0 {
		keep = partsKept
	}
	return pruned, errors.Join(s.sweepParts(ctx, keep), s.sweepBlobs(ctx))
}

// take removes an image, at once for others, and leaves its blobs.
func (s *Store) take(id string) error {
	ws, err := s.workspace("remove")
	if err != nil {
		return err
	}
	err = os.Rename(s.imageDir(id), ws.path("image"))
	if errors.Is(err, fs.ErrNotExist) {
		err = notFound(id)
	}
	if err == nil {
		defer s.removed(id)
	}
	return diskError(errors.Join(err, ws.remove()), "removing an image")
}

// files are what an image is made of on the disk, by names that images share
// when they share the file, with the bytes that each takes.
func (s *Store) files(r record) map[string]int64 {
	found := map[string]int64{}
	paths := []string{s.Root(r.Image.ID)}
	if r.Manifest != "" {
		paths = append(paths, s.blobPath(r.Config), s.blobPath(r.Manifest))
	}
	for _, l := range r.Layers {
		paths = append(paths, s.blobPath(l.Digest))
	}
	for _, path := range paths {
		var st syscall.Stat_t
		if syscall.Stat(path, &st) == nil {
			found[fmt.Sprint(st.Dev, ":", st.Ino)] = st.Blocks * 512
		}
	}
	return found
}

// holdings counts how many images have each file.
type holdings struct {
	count map[string]int
	total int64
}

func (h *holdings) add(files map[string]int64) {
	for name, size := range files {
		if h.count[name]++; h.count[name] == 1 {
			h.total += size
		}
	}
}

// remove returns how many bytes go with the last image that had them.
func (h *holdings) remove(files map[string]int64) (freed int64) {
	for name, size := range files {
		if h.count[name]--; h.count[name] == 0 {
			freed += size
		}
	}
	h.total -= freed
	return freed
}
