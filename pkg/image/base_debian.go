package image

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/innerdock/innerdock/pkg/durable"
)

// debianLayer returns the only layer of a base made from Debian's packages. It
// is kept, by the hash of what it is made from, in a directory that stores may
// share: KEY.json describes it and KEY.tar.zst is its blob.
func (s *Store) debianLayer(ctx context.Context, ws *workspace, base resolution, say reporter) (layer, error) {
	kept := filepath.Join(s.debianCache, strings.TrimPrefix(base.Digest, "sha256:"))
	lock, err := lockFile(ctx, kept+".lock", func() {
		say.progress("base", "Somebody else makes %s: waiting for it", base.Debian.Name())
	})
	if err != nil {
		return layer{}, err
	}
	defer lock.unlock()
	if l, ok := s.adopt(ws, kept); ok {
		say.progress("base", "%s was made before", base.Debian.Name())
		return l, nil
	}
	start := time.Now()
	say.progress("base", "Making %s from packages: about half a minute, this once", base.Debian.Name())
	tmp := ws.path("debian")
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return layer{}, diskError(err, "making a temporary directory")
	}
	l, err := s.makeLayer(ws, func(w io.Writer) error {
		return s.debian.Make(ctx, base.Debian, tmp, w, func(line string) { say.log("base", line) })
	})
	if err != nil {
		return layer{}, err
	}
	say.progress("base", "Made %s in %.1f s", base.Debian.Name(), time.Since(start).Seconds())
	if err := s.keep(l, kept); err != nil {
		s.log.Warn("a Debian base is not kept for other stores", "err", err)
	}
	return l, nil
}

// adopt takes a kept base into the store.
func (s *Store) adopt(ws *workspace, kept string) (layer, bool) {
	data, err := os.ReadFile(kept + ".json")
	if err != nil {
		return layer{}, false
	}
	var l layer
	if json.Unmarshal(data, &l) != nil || !imageID.MatchString(l.Digest) {
		return layer{}, false
	}
	if s.hasBlob(l) {
		return l, true
	}
	info, err := os.Stat(kept + ".tar.zst")
	if err != nil || info.Size() != l.Size {
		return layer{}, false
	}
	if os.Link(kept+".tar.zst", s.blobPath(l.Digest)) == nil {
		return l, true // its content is checked when it is unpacked
	}
	f, err := os.Open(kept + ".tar.zst")
	if err != nil {
		return layer{}, false
	}
	defer f.Close()
	blob, err := ws.blob()
	if err != nil {
		return layer{}, false
	}
	defer blob.discard()
	if _, err := io.Copy(blob, f); err != nil || blob.digest() != l.Digest {
		return layer{}, false
	}
	return l, blob.commit(s) == nil
}

// keep leaves a base for other stores, under the lock of its key. Its
// description comes last: without it the base is not used.
func (s *Store) keep(l layer, kept string) error {
	data, err := json.Marshal(l)
	if err != nil {
		return err
	}
	part := kept + ".part" // of one that was killed: replaced
	if err := os.Remove(part); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := linkOrCopy(s.blobPath(l.Digest), part); err != nil {
		return err
	}
	if err := durable.Publish(part, kept+".tar.zst"); err != nil {
		return err
	}
	if err := writeSynced(part, data); err != nil {
		return err
	}
	return durable.Publish(part, kept+".json")
}

func linkOrCopy(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	if err == nil {
		err = dst.Sync()
	}
	return errors.Join(err, dst.Close())
}
