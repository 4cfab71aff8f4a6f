package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/innerdock/innerdock"
)

// Caps of an image as its registry describes it.
const (
	maxLayers     = 512
	maxConfigSize = 8 << 20 // bytes
)

// How layers are pulled.
const (
	pullsAtOnce  = 4
	pullAttempts = 3
	pullStall    = time.Minute // without a byte: tried again
)

// content is what a base is made of.
type content struct {
	layers []layer // bottom first
	config v1.Config
}

// pull brings the layers of an image into the store.
func (s *Store) pull(ctx context.Context, ws *workspace, ref name.Reference, digest string, say reporter) (content, error) {
	img, err := s.remoteImage(ctx, ref, digest)
	if err != nil {
		return content{}, err
	}
	manifest, config, err := describe(ctx, ref, img)
	if err != nil {
		return content{}, err
	}
	p := puller{store: s, ws: ws, ref: ref}
	layers := make([]layer, len(manifest.Layers))
	for i, d := range manifest.Layers {
		layers[i] = layer{Digest: d.Digest.String(), DiffID: config.RootFS.DiffIDs[i].String(), Size: d.Size}
		if !s.hasBlob(layers[i]) {
			p.total += d.Size
		}
	}
	if p.total > s.limits.Bytes {
		return content{}, innerdock.Errorf(innerdock.CodeTooLarge, "%s is %d MiB to pull, more than the server takes; use a smaller image", ref.Name(), p.total>>20)
	}
	start := time.Now()
	if err := p.all(ctx, img, layers, say); err != nil {
		return content{}, err
	}
	say.progress("pull", "Pulled %s in %.1f s", megabytes(p.total), time.Since(start).Seconds())
	return content{layers, config.Config}, nil
}

// describe reads and checks what the registry says about an image.
func describe(ctx context.Context, ref name.Reference, img v1.Image) (*v1.Manifest, *v1.ConfigFile, error) {
	manifest, err := img.Manifest()
	if err != nil {
		return nil, nil, remoteError(ctx, ref, err)
	}
	if manifest.Config.Size > maxConfigSize || len(manifest.Layers) > maxLayers {
		return nil, nil, innerdock.Errorf(innerdock.CodeInvalid, "%s is refused: it has %d layers and a configuration of %d bytes", ref.Name(), len(manifest.Layers), manifest.Config.Size)
	}
	for _, d := range manifest.Layers {
		if !d.MediaType.IsLayer() || !d.MediaType.IsDistributable() || d.Size < 0 || d.Digest.Algorithm != "sha256" {
			return nil, nil, innerdock.Errorf(innerdock.CodeUnsupported, "%s has a layer of type %q, which is no part of a Linux image; use another image", ref.Name(), clip(string(d.MediaType)))
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, nil, remoteError(ctx, ref, err)
	}
	if config.Architecture != "" && config.Architecture != runtime.GOARCH || config.OS != "" && config.OS != "linux" {
		return nil, nil, innerdock.Errorf(innerdock.CodeImageNotFound, "%s is for %s/%s and this server is linux/%s; choose another image", ref.Name(), clip(config.OS), clip(config.Architecture), runtime.GOARCH)
	}
	if len(config.RootFS.DiffIDs) != len(manifest.Layers) {
		return nil, nil, innerdock.Errorf(innerdock.CodeInvalid, "%s is refused: its configuration names %d layers and its manifest %d", ref.Name(), len(config.RootFS.DiffIDs), len(manifest.Layers))
	}
	return manifest, config, nil
}

// puller pulls the layers of one image.
type puller struct {
	store *Store
	ws    *workspace
	ref   name.Reference
	total int64 // bytes to pull
	done  atomic.Int64
}

func (p *puller) all(ctx context.Context, img v1.Image, layers []layer, say reporter) error {
	stop := say.every(time.Second, func() { say.progress("pull", "%s of %s", megabytes(p.done.Load()), megabytes(p.total)) })
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(pullsAtOnce)
	pulled := map[string]bool{}
	for _, l := range layers {
		if pulled[l.Digest] || p.store.hasBlob(l) {
			continue
		}
		pulled[l.Digest] = true
		group.Go(func() error { return p.layer(ctx, img, l) })
	}
	return group.Wait()
}

// layer pulls one layer, again if the connection breaks or the bytes are wrong.
func (p *puller) layer(ctx context.Context, img v1.Image, l layer) error {
	var err error
	for range pullAttempts {
		if err = p.attempt(ctx, img, l); err == nil || ctx.Err() != nil {
			break
		}
		if code := innerdock.CodeOf(err); code != innerdock.CodeInternal && code != innerdock.CodeUnavailable {
			break
		}
	}
	var coded *innerdock.Error
	if err == nil || errors.As(err, &coded) {
		return err
	}
	return remoteError(ctx, p.ref, fmt.Errorf("layer %s: %w", l.Digest, err))
}

func (p *puller) attempt(ctx context.Context, img v1.Image, l layer) error {
	hash, err := v1.NewHash(l.Digest)
	if err != nil {
		return err
	}
	remote, err := img.LayerByDigest(hash)
	if err != nil {
		return err
	}
	body, err := remote.Compressed()
	if err != nil {
		return err
	}
	guarded := newStallGuard(body, pullStall)
	defer guarded.Close()
	blob, err := p.ws.blob()
	if err != nil {
		return err
	}
	defer blob.discard()
	// One byte more than it should be, to see that it is too long.
	n, err := io.Copy(io.MultiWriter(blob, &counter{&p.done}), io.LimitReader(guarded, l.Size+1))
	if err != nil {
		p.done.Add(-n)
		return diskOr(err)
	}
	if n != l.Size || blob.digest() != l.Digest {
		p.done.Add(-n)
		return innerdock.Errorf(innerdock.CodeUnavailable, "the registry %s sent %s damaged: %d bytes with the digest %s instead of %d with %s; try again, or push the image again",
			p.ref.Context().RegistryStr(), p.ref.Name(), n, blob.digest(), l.Size, l.Digest)
	}
	return blob.commit(p.store)
}

// diskOr gives an error its code if the disk is full, and leaves others alone.
func diskOr(err error) error {
	if coded := diskError(err, "writing a layer"); innerdock.CodeOf(coded) == innerdock.CodeExhausted {
		return coded
	}
	return err
}

type counter struct{ n *atomic.Int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// stallGuard closes a response that has stopped coming.
type stallGuard struct {
	io.ReadCloser
	timer *time.Timer
	limit time.Duration
}

func newStallGuard(body io.ReadCloser, limit time.Duration) *stallGuard {
	return &stallGuard{body, time.AfterFunc(limit, func() { _ = body.Close() }), limit}
}

func (g *stallGuard) Read(p []byte) (int, error) {
	n, err := g.ReadCloser.Read(p)
	g.timer.Reset(g.limit)
	return n, err
}

func (g *stallGuard) Close() error {
	g.timer.Stop()
	return g.ReadCloser.Close()
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
