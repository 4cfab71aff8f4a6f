package image

import (
	"bytes"
	"context"
	"io"
	"os"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/innerdock/innerdock"
)

// sourceSandbox is where the image of what a sandbox wrote came from.
const sourceSandbox = "sandbox"

// Commit makes an image of another one and of what write writes on top of it, an
// OCI layer. by says for people where that comes from.
func (s *Store) Commit(ctx context.Context, parent, by string, write func(layer io.Writer) error) (innerdock.Image, error) {
	r, err := s.working("commit", func(ws *workspace) (record, error) { return s.commit(ctx, ws, parent, by, write) })
	return r.Image, err
}

func (s *Store) commit(ctx context.Context, ws *workspace, parent, by string, write func(layer io.Writer) error) (record, error) {
	below, err := s.record(parent)
	if err != nil {
		return record{}, err
	}
	if len(below.Layers) >= maxLayers {
		return record{}, innerdock.Errorf(innerdock.CodeTooLarge, "the image %s has %d layers already, and none can be added; build one of less", parent, len(below.Layers))
	}
	config, err := s.configOf(below)
	if err != nil {
		return record{}, err
	}
	top, err := s.makeLayer(ws, write)
	if err != nil {
		return record{}, err
	}
	digest, _, err := v1.SHA256(bytes.NewReader([]byte(parent + top.DiffID)))
	if err != nil {
		return record{}, innerdock.Internal(err, "hashing a layer")
	}
	b := build{store: s, say: newReporter(nil), ws: ws, base: resolution{Ref: below.Image.Base, Source: sourceSandbox, Digest: digest.String()}}
	if b.id, err = (plan{}).id(b.base); err != nil {
		return record{}, err
	}
	lock, err := s.lock(ctx, "image-"+strings.TrimPrefix(b.id, "sha256:"), nil)
	if err != nil {
		return record{}, err
	}
	defer lock.unlock()
	if r, err := s.record(b.id); innerdock.CodeOf(err) != innerdock.CodeImageNotFound {
		r.Image.Cached = true
		s.touch(b.id)
		return r, err
	}
	if err := os.Mkdir(ws.path("image"), 0o700); err != nil {
		return record{}, diskError(err, "making a temporary directory")
	}
	r := record{Image: below.Image, Layers: append(slices.Clone(below.Layers), top)}
	if err := b.makeRoot(ctx, content{layers: r.Layers}); err != nil {
		return record{}, err
	}
	config.History = append(config.History, v1.History{CreatedBy: by})
	if err := b.artifact(&r, content{layers: r.Layers, config: config}); err != nil {
		return record{}, err
	}
	return b.publish(r)
}
