package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image/erofs"
	"github.com/innerdock/innerdock/pkg/image/unpack"
)

// minFree is how much room the disk must have for a build to begin, in bytes.
const minFree = 64 << 20

// Build returns the image of a definition, and makes it if it is not there.
// progress, which may be nil, is called with the events progress and log while
// it works, never concurrently. When several builds of one definition run at
// once, in whatever processes, one works and the others wait for it.
func (s *Store) Build(ctx context.Context, def innerdock.ImageDefinition, progress func(event string, e innerdock.BuildEvent)) (innerdock.Image, error) {
	p, err := newPlan(def)
	if err != nil {
		return innerdock.Image{}, err
	}
	if len(p.steps) > 0 && s.runner == nil {
		return innerdock.Image{}, innerdock.Errorf(innerdock.CodeUnsupported, "this server cannot run the steps of an image; use a base image alone")
	}
	say := newReporter(progress)
	base, err := s.resolve(ctx, p.base, say)
	if err != nil {
		return innerdock.Image{}, err
	}
	r, err := s.image(ctx, p, base, say)
	return r.Image, err
}

// image returns the image of a plan, made if need be.
func (s *Store) image(ctx context.Context, p plan, base resolution, say reporter) (record, error) {
	id, err := p.id(base)
	if err != nil {
		return record{}, err
	}
	if r, err := s.record(id); innerdock.CodeOf(err) != innerdock.CodeImageNotFound {
		r.Image.Cached = true
		return r, err
	}
	lock, err := s.lock(ctx, "image-"+strings.TrimPrefix(id, "sha256:"), func() {
		say.progress("base", "Another build makes the same image: waiting for it")
	})
	if err != nil {
		return record{}, err
	}
	defer lock.unlock()
	if r, err := s.record(id); innerdock.CodeOf(err) != innerdock.CodeImageNotFound {
		r.Image.Cached = true
		return r, err
	}
	b := build{store: s, plan: p, id: id, base: base, say: say}
	start := time.Now()
	r, err := b.guarded(ctx)
	if err != nil {
		s.log.Info("image build failed", "image", id, "base", base.Ref, "seconds", time.Since(start).Seconds(), "err", err)
		return record{}, b.clean(ctx, err)
	}
	s.log.Info("image built", "image", id, "base", base.Ref, "source", base.Source, "bytes", r.Image.Size, "seconds", time.Since(start).Seconds())
	say.progress("image", "The image is ready: %s in %.1f s", megabytes(r.Image.Size), time.Since(start).Seconds())
	return r, nil
}

// checkRoom refuses a build that would fill the disk at once.
func (s *Store) checkRoom() error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.dir, &st); err != nil {
		return innerdock.Internal(err, "looking for room on the disk")
	}
	if free := int64(st.Bavail) * st.Bsize; free < minFree {
		return innerdock.Errorf(innerdock.CodeExhausted, "the disk has %s left, too little for an image; remove images that are not used, or make room in the data directory, and try again", megabytes(free))
	}
	return nil
}

// build makes one image.
type build struct {
	store *Store
	plan  plan
	id    string
	base  resolution
	say   reporter
	ws    *workspace
}

// guarded keeps others from sweeping the layers of the build.
func (b *build) guarded(ctx context.Context) (record, error) {
	release, err := b.store.use()
	if err != nil {
		return record{}, err
	}
	defer release()
	if _, err := b.store.sweepTmp(); err != nil { // other servers may have been killed since Open
		return record{}, err
	}
	if err := b.store.checkRoom(); err != nil {
		return record{}, err
	}
	return b.run(ctx)
}

// clean removes the layers of a build that failed for good. What was pulled
// stays when trying again may help.
func (b *build) clean(ctx context.Context, failed error) error {
	if ctx.Err() != nil || innerdock.CodeOf(failed) == innerdock.CodeUnavailable {
		return failed
	}
	if err := b.store.sweepBlobs(ctx); err != nil {
		b.store.log.Warn("the layers of a failed build are left", "image", b.id, "err", err)
	}
	return failed
}

func (b *build) run(ctx context.Context) (r record, err error) {
	b.ws, err = b.store.workspace("build")
	if err != nil {
		return record{}, err
	}
	defer func() {
		if rerr := b.ws.remove(); err == nil && rerr != nil {
			err = innerdock.Internal(rerr, "removing a temporary directory")
		}
	}()
	if err := os.Mkdir(b.ws.path("image"), 0o700); err != nil {
		return record{}, diskError(err, "making a temporary directory")
	}
	if b.plan.isBase() {
		return b.fromBase(ctx)
	}
	parent, err := b.parent(ctx)
	if err != nil {
		return record{}, err
	}
	return b.fromParent(ctx, parent)
}

// fromBase makes the image of a base alone.
func (b *build) fromBase(ctx context.Context) (record, error) {
	c, err := b.fetch(ctx)
	if err != nil {
		return record{}, err
	}
	if err := b.makeRoot(ctx, c.layers); err != nil {
		return record{}, err
	}
	return b.publish(record{Layers: c.layers, Image: innerdock.Image{
		Env: envMap(c.config.Env), Entrypoint: c.config.Entrypoint, Cmd: c.config.Cmd, WorkingDir: c.config.WorkingDir,
	}})
}

// fetch brings the base's layers into the store.
func (b *build) fetch(ctx context.Context) (content, error) {
	if b.base.Source == sourceDebian {
		l, err := b.store.debianLayer(ctx, b.ws, b.base, b.say)
		return content{
			layers: []layer{l},
			config: v1.Config{Env: b.base.Debian.Env(), Cmd: b.base.Debian.Cmd()},
		}, err
	}
	ref, err := name.ParseReference(b.base.Ref)
	if err != nil {
		return content{}, innerdock.Internal(err, "reading an image reference")
	}
	return b.store.pull(ctx, b.ws, ref, b.base.Digest, b.say)
}

// parent returns the image of the base alone, with its layers.
func (b *build) parent(ctx context.Context) (record, error) {
	r, err := b.store.image(ctx, b.plan.alone(), b.base, b.say)
	if err != nil {
		return record{}, err
	}
	for _, l := range r.Layers {
		if !b.store.hasBlob(l) {
			return record{}, innerdock.Errorf(innerdock.CodeInternal, "the base image %s has lost a layer; remove it and build again", r.Image.ID)
		}
	}
	return r, nil
}

// fromParent makes an image of its base, steps and environment.
func (b *build) fromParent(ctx context.Context, parent record) (record, error) {
	r := record{Image: parent.Image, Layers: slices.Clone(parent.Layers)}
	r.Image.Env = merge(parent.Image.Env, b.plan.env)
	if len(b.plan.steps) == 0 {
		if err := os.Link(b.store.Root(parent.Image.ID), b.ws.path("image/root.erofs")); err != nil {
			return record{}, diskError(err, "linking the image's file system")
		}
		return b.publish(r)
	}
	root := b.ws.path("base.erofs") // a name of its own: the base may be removed meanwhile
	if err := os.Link(b.store.Root(parent.Image.ID), root); err != nil {
		return record{}, diskError(err, "linking the base's file system")
	}
	top, err := b.runSteps(ctx, root, r.Image.Env)
	if err != nil {
		return record{}, err
	}
	r.Layers = append(r.Layers, top)
	if err := b.makeRoot(ctx, r.Layers); err != nil {
		return record{}, err
	}
	return b.publish(r)
}

// makeRoot unpacks layers and makes the image's EROFS file of them.
func (b *build) makeRoot(ctx context.Context, layers []layer) error {
	tree := b.ws.path("tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return diskError(err, "making a temporary directory")
	}
	start := time.Now()
	b.say.progress("unpack", "Unpacking %d layers", len(layers))
	dropped, err := b.store.unpack(ctx, tree, layers)
	if err != nil {
		return err
	}
	if dropped > 0 {
		b.say.progress("unpack", "Left out %d device nodes and FIFOs", dropped)
	}
	unpacked := time.Now()
	b.say.progress("image", "Making the root file system (unpacked in %.1f s)", unpacked.Sub(start).Seconds())
	if err := erofs.Make(ctx, tree, b.ws.path("image/root.erofs")); err != nil {
		return err
	}
	b.say.progress("image", "Made the root file system in %.1f s", time.Since(unpacked).Seconds())
	return diskError(os.RemoveAll(tree), "removing a temporary directory")
}

// unpack applies layers to the empty directory tree.
func (s *Store) unpack(ctx context.Context, tree string, layers []layer) (dropped int, err error) {
	t, err := unpack.New(tree, s.limits)
	if err != nil {
		return 0, err
	}
	defer t.Close()
	for _, l := range layers {
		if err := s.unpackLayer(ctx, t, l); err != nil {
			return 0, err
		}
	}
	return t.Dropped(), t.Finish()
}

func (s *Store) unpackLayer(ctx context.Context, t *unpack.Tree, l layer) error {
	f, err := os.Open(s.blobPath(l.Digest))
	if err != nil {
		return innerdock.Internal(err, "reading a layer")
	}
	defer f.Close()
	plain, err := unpack.Decompress(f)
	if err != nil {
		return err
	}
	defer plain.Close()
	sum := sha256.New()
	if err := t.Apply(ctx, io.TeeReader(plain, sum)); err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != l.DiffID {
		return innerdock.Errorf(innerdock.CodeInvalid, "the image is refused: its layer %s unpacks to %s, and its configuration says %s; push it again", l.Digest, got, l.DiffID)
	}
	return nil
}

// publish completes the record and puts the image into the store.
func (b *build) publish(r record) (record, error) {
	digest, size, err := hashFile(b.ws.path("image/root.erofs"))
	if err != nil {
		return record{}, innerdock.Internal(err, "hashing the image")
	}
	r.Image.ID, r.Image.Digest, r.Image.Size = b.id, digest, size
	r.Image.Base, r.Image.Source = b.base.Ref, b.base.Source
	if b.base.Source == sourceDebian {
		r.Image.Base = "debian:" + b.base.Debian.Suite
	}
	r.Image.CreatedAt, r.Image.Cached = time.Now().UTC(), false
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return record{}, innerdock.Internal(err, "describing the image")
	}
	err = writeSynced(b.ws.path("image/image.json"), append(data, '\n'))
	if err == nil {
		err = syncDir(b.ws.path("image"))
	}
	if err == nil {
		err = publish(b.ws.path("image"), b.store.imageDir(b.id))
	}
	return r, diskError(err, "storing the image")
}

func hashFile(path string) (digest string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	sum := sha256.New()
	size, err = io.Copy(sum, f)
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), size, errors.Join(err, f.Close())
}

// envMap makes a map of KEY=value pairs; what is no pair is left out.
func envMap(pairs []string) map[string]string {
	env := map[string]string{}
	for _, pair := range pairs {
		if k, v, ok := strings.Cut(pair, "="); ok && k != "" {
			env[k] = v
		}
	}
	return env
}

// merge returns a with b over it.
func merge(a, b map[string]string) map[string]string {
	m := maps.Clone(a)
	if m == nil {
		m = map[string]string{}
	}
	maps.Copy(m, b)
	return m
}
