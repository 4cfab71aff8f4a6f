package image

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"sync"
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

// pullsAtOnce is how many layers of an image are pulled at a time.
const pullsAtOnce = 4

// content is what an image is made of.
type content struct {
	layers    []layer // bottom first
	config    *v1.ConfigFile
	rawConfig []byte   // as its registry has it; nil: made from config
	manifest  []byte   // as its registry has it; nil: made from the others
	pulling   *pulling // what brings the layers into the store; nil: they are there
}

// pulling is a pull that goes on. Whoever has it stops it.
type pulling struct {
	cancel context.CancelCauseFunc
	ready  []chan struct{} // each closed when its layer is in the store
	done   chan struct{}   // closed at the end
	err    error           // then
}

// wait returns when a layer is in the store.
func (p *pulling) wait(ctx context.Context, layer int) error {
	select {
	case <-p.ready[layer]:
		return nil
	case <-p.done:
		if p.err != nil {
			return p.err
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stop ends the pull if the work on it has failed, waits for its end, and
// returns why it all failed.
func (p *pulling) stop(failed error) error {
	if failed != nil {
		p.cancel(failed)
	}
	<-p.done
	p.cancel(nil)
	if failed != nil {
		return failed
	}
	return p.err
}

// pull begins to bring the layers of an image into the store.
func (s *Store) pull(ctx context.Context, ws *workspace, ref name.Reference, base resolution, say reporter) (content, error) {
	img, at, err := s.remoteImage(ctx, ref, base.Digest, base.auth)
	if err != nil {
		return content{}, err
	}
	manifest, config, err := describe(ctx, ref, img)
	if err != nil {
		return content{}, err
	}
	p := &puller{store: s, ws: ws, ref: ref, at: at}
	layers := make([]layer, len(manifest.Layers))
	for i, d := range manifest.Layers {
		layers[i] = layer{Digest: d.Digest.String(), DiffID: config.RootFS.DiffIDs[i].String(), Size: d.Size, MediaType: d.MediaType}
		if !s.hasBlob(layers[i]) {
			p.total += d.Size
		}
	}
	if p.total > s.limits.Bytes {
		return content{}, innerdock.Errorf(innerdock.CodeTooLarge, "%s is %d MiB to pull, more than the server takes; use a smaller image", ref.Name(), p.total>>20)
	}
	c := content{layers: layers, config: config}
	if c.manifest, err = img.RawManifest(); err == nil {
		c.rawConfig, err = img.RawConfigFile()
	}
	if err != nil {
		return content{}, remoteError(ctx, ref, err)
	}
	c.pulling = p.begin(ctx, layers, say)
	return c, nil
}

// describe reads and checks what the registry says about an image.
func describe(ctx context.Context, ref name.Reference, img v1.Image) (*v1.Manifest, *v1.ConfigFile, error) {
	manifest, err := img.Manifest()
	if err != nil {
		return nil, nil, remoteError(ctx, ref, err)
	}
	if manifest.Config.Size > maxConfigSize {
		return nil, nil, innerdock.Errorf(innerdock.CodeInvalid, "%s is refused: it has a configuration of %d bytes", ref.Name(), manifest.Config.Size)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, nil, remoteError(ctx, ref, err)
	}
	return manifest, config, check(ref.Name(), manifest, config)
}

// check refuses what is no image for this machine.
func check(name string, manifest *v1.Manifest, config *v1.ConfigFile) error {
	if len(manifest.Layers) > maxLayers {
		return innerdock.Errorf(innerdock.CodeInvalid, "%s is refused: it has %d layers", name, len(manifest.Layers))
	}
	for _, d := range manifest.Layers {
		if !d.MediaType.IsLayer() || !d.MediaType.IsDistributable() || d.Size < 0 || d.Digest.Algorithm != "sha256" {
			return innerdock.Errorf(innerdock.CodeUnsupported, "%s has a layer of type %q, which is no part of a Linux image; use another image", name, clip(string(d.MediaType)))
		}
	}
	if len(config.RootFS.DiffIDs) != len(manifest.Layers) {
		return innerdock.Errorf(innerdock.CodeInvalid, "%s is refused: its configuration names %d layers and its manifest %d", name, len(config.RootFS.DiffIDs), len(manifest.Layers))
	}
	return checkPlatform(name, config)
}

// platform is what this machine runs.
var platform = v1.Platform{OS: "linux", Architecture: runtime.GOARCH}

func checkPlatform(name string, config *v1.ConfigFile) error {
	if config.Architecture != "" && config.Architecture != platform.Architecture || config.OS != "" && config.OS != platform.OS {
		return innerdock.Errorf(innerdock.CodeImageNotFound, "%s is for %s/%s and this server is %s; choose another image", name, clip(config.OS), clip(config.Architecture), platform)
	}
	return nil
}

// puller pulls the layers of one image.
type puller struct {
	store *Store
	ws    *workspace
	ref   name.Reference
	at    place
	ctx   context.Context
	total int64 // bytes to pull

	login    sync.Mutex
	loggedIn *http.Client
	done     atomic.Int64
}

// begin pulls the layers, some at a time, from the lowest.
func (p *puller) begin(ctx context.Context, layers []layer, say reporter) *pulling {
	ctx, cancel := context.WithCancelCause(ctx)
	all := &pulling{cancel: cancel, done: make(chan struct{}), ready: make([]chan struct{}, len(layers))}
	first := map[string]chan struct{}{}
	group, ctx := errgroup.WithContext(ctx)
	p.ctx = ctx
	group.SetLimit(pullsAtOnce)
	var missing []func() error
	for i, l := range layers {
		if ready, ok := first[l.Digest]; ok {
			all.ready[i] = ready // the same layer again
			continue
		}
		ready := make(chan struct{})
		first[l.Digest], all.ready[i] = ready, ready
		if p.store.hasBlob(l) {
			close(ready)
			continue
		}
		missing = append(missing, func() error {
			if err := p.layer(ctx, l); err != nil {
				return err
			}
			close(ready)
			return nil
		})
	}
	go func() {
		defer close(all.done)
		start := time.Now()
		stop := say.every(time.Second, func() { say.progress("pull", "%s of %s", megabytes(p.done.Load()), megabytes(p.total)) })
		for _, pull := range missing {
			group.Go(pull)
		}
		all.err = group.Wait()
		stop()
		if all.err == nil {
			say.progress("pull", "Pulled %s in %.1f s", megabytes(p.total), time.Since(start).Seconds())
		}
	}()
	return all
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
