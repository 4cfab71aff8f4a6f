package image

import (
	"cmp"
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
	"github.com/innerdock/innerdock/pkg/durable"
	"github.com/innerdock/innerdock/pkg/image/unpack"
)

// minFree is how much room the disk must have for a build to begin, in bytes.
const minFree = 64 << 20

// Build returns the image of a definition, and makes it if it is not there. Its
// steps have nobody's cache.
// progress, which may be nil, is called with the events progress and log while
// it works, never concurrently. When several builds of one definition run at
// once, in whatever processes, one works and the others wait for it.
func (s *Store) Build(ctx context.Context, def innerdock.ImageDefinition, progress func(event string, e innerdock.BuildEvent)) (innerdock.Image, error) {
	p, err := newPlan(def)
	if err != nil {
		return innerdock.Image{}, err
	}
	if p.needsBuildKit() {
		return innerdock.Image{}, innerdock.Errorf(innerdock.CodeInternal, "this definition needs a builder")
	}
	return s.buildSteps(ctx, p, newReporter(progress))
}

// buildSteps returns the image of a plan that needs no builder.
func (s *Store) buildSteps(ctx context.Context, p plan, say reporter) (innerdock.Image, error) {
	if len(p.steps)+len(p.images) > 0 && s.runner == nil {
		return innerdock.Image{}, innerdock.Errorf(innerdock.CodeUnsupported, "this server cannot run the steps of an image; use a base image alone")
	}
	base, err := s.resolve(ctx, p, say)
	if err != nil {
		return innerdock.Image{}, err
	}
	r, err := s.image(ctx, p, base, say)
	return r.Image, err
}

// Find returns a tenant's image of a definition if it is there. It asks nobody what a
// tag stands for: one that was never asked for has no image.
func (s *Store) Find(ctx context.Context, tenant string, def innerdock.ImageDefinition) (innerdock.Image, error) {
	p, err := newPlan(def)
	if err != nil {
		return innerdock.Image{}, err
	}
	p.tenant = tenant
	id, err := s.find(ctx, tenant, p)
	if err != nil {
		return innerdock.Image{}, err
	}
	image, err := s.Get(ctx, id)
	if innerdock.CodeOf(err) == innerdock.CodeImageNotFound {
		return innerdock.Image{}, innerdock.Errorf(innerdock.CodeImageNotFound, "there is no image of this definition yet; build it")
	}
	image.Cached = true
	return image, err
}

// find returns the ID that a plan's image has if it is there; "" where that is not known.
func (s *Store) find(ctx context.Context, tenant string, p plan) (string, error) {
	if !p.needsBuildKit() && p.def.Context == "" {
		base, known, err := s.known(ctx, p)
		if err != nil || !known {
			return "", err
		}
		return p.id(base)
	}
	key, err := p.withoutImages().buildKey(tenant)
	if err != nil {
		return "", err
	}
	img, ok := s.built(ctx, key)
	if !ok || len(p.images) == 0 {
		return img.ID, nil
	}
	p, base := p.over(img)
	return p.id(base)
}

// image returns the image of a plan, made if need be.
func (s *Store) image(ctx context.Context, p plan, base resolution, say reporter) (record, error) {
	id, err := p.id(base)
	if err != nil {
		return record{}, err
	}
	if r, err := s.record(id); innerdock.CodeOf(err) != innerdock.CodeImageNotFound {
		r.Image.Cached = true
		s.touch(id)
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
	if err := b.store.sweepParts(ctx, partsKept); err != nil {
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
	if len(b.plan.images) > 0 {
		return b.withImages(ctx)
	}
	parent, done, found := b.begun()
	if !found {
		var err error
		if parent, err = b.parent(ctx); err != nil {
			return record{}, err
		}
	}
	return b.fromParent(ctx, parent, b.plan.steps[done:])
}

// fromBase makes the image of a base alone.
func (b *build) fromBase(ctx context.Context) (record, error) {
	c, err := b.fetch(ctx)
	if err != nil {
		return record{}, err
	}
	return b.fromContent(ctx, c)
}

// fromContent makes the image that layers and a configuration are.
func (b *build) fromContent(ctx context.Context, c content) (record, error) {
	if err := b.makeRoot(ctx, c); err != nil {
		return record{}, err
	}
	config := c.config.Config
	r := record{Layers: c.layers, Image: innerdock.Image{
		Env: envMap(config.Env), Entrypoint: config.Entrypoint, Cmd: config.Cmd, WorkingDir: config.WorkingDir, User: config.User,
	}}
	if err := b.artifact(&r, c); err != nil {
		return record{}, err
	}
	return b.publish(r)
}

// fetch brings the base's layers into the store.
func (b *build) fetch(ctx context.Context) (content, error) {
	if b.base.Source == sourceDebian {
		l, err := b.store.debianLayer(ctx, b.ws, b.base, b.say)
		return content{layers: []layer{l}, config: &v1.ConfigFile{
			Config:  v1.Config{Env: b.base.Debian.Env(), Cmd: b.base.Debian.Cmd()},
			History: []v1.History{{CreatedBy: "Debian " + b.base.Debian.Suite + " from packages"}},
		}}, err
	}
	ref, err := name.ParseReference(b.base.Ref)
	if err != nil {
		return content{}, innerdock.Internal(err, "reading an image reference")
	}
	return b.store.pull(ctx, b.ws, ref, b.base, b.say)
}

// parent returns the image of the base alone, with its layers.
func (b *build) parent(ctx context.Context) (record, error) {
	r, err := b.store.image(ctx, b.plan.alone(), b.base, b.say)
	if err != nil {
		return record{}, err
	}
	if !b.store.whole(r) {
		return record{}, innerdock.Errorf(innerdock.CodeInternal, "the base image %s has lost a layer; remove it and build again", r.Image.ID)
	}
	return r, nil
}

// whole reports whether all layers of an image are in the store.
func (s *Store) whole(r record) bool {
	return !slices.ContainsFunc(r.Layers, func(l layer) bool { return !s.hasBlob(l) })
}

// begun returns the image for which most of the steps have been run already, and
// how many. It is enough to go on from: nothing of the base is needed any more.
func (b *build) begun() (r record, done int, found bool) {
	for n := len(b.plan.steps) - 1; n > 0; n-- {
		id, err := b.plan.first(n).id(b.base)
		if err != nil {
			continue
		}
		if r, err := b.store.record(id); err == nil && b.store.whole(r) {
			b.store.touch(id)
			return r, n, true
		}
	}
	return record{}, 0, false
}

// fromParent makes an image of its base, or of one with the first steps, and of the
// other steps, the environment and what else the definition says.
func (b *build) fromParent(ctx context.Context, parent record, steps []Step) (record, error) {
	r := record{Image: parent.Image, Layers: slices.Clone(parent.Layers)}
	r.Image.Env = merge(b.plan.paths(parent.Image.Env), b.plan.env)
	r.Image.WorkingDir = cmp.Or(b.plan.workingDir, parent.Image.WorkingDir)
	r.Image.User = cmp.Or(b.plan.user, b.plan.stepsUser(parent.Image.User))
	config, err := b.store.configOf(parent)
	if err != nil {
		return record{}, err
	}
	config.Config.Env, config.Config.WorkingDir, config.Config.User = pairs(r.Image.Env), r.Image.WorkingDir, r.Image.User
	if len(steps) == 0 {
		err = os.Link(b.store.Root(parent.Image.ID), b.ws.path("image/root.erofs"))
	} else {
		err = os.Link(b.store.Root(parent.Image.ID), b.ws.path("base.erofs")) // a name of its own: the image may be removed meanwhile
	}
	if err != nil {
		return record{}, diskError(err, "linking the base's file system")
	}
	if len(steps) > 0 {
		top, err := b.runSteps(ctx, b.ws.path("base.erofs"), r.Image.Env, steps)
		if err != nil {
			return record{}, err
		}
		r.Layers = append(r.Layers, top)
		if err := b.makeRoot(ctx, content{layers: r.Layers}); err != nil {
			return record{}, err
		}
		for i, step := range steps { // all of them are one layer
			config.History = append(config.History, v1.History{CreatedBy: strings.Join(step.Args, " "), EmptyLayer: i < len(steps)-1})
		}
	}
	if err := b.artifact(&r, content{layers: r.Layers, config: config}); err != nil {
		return record{}, err
	}
	return b.publish(r)
}

// bare returns the image that Docker images come into.
func (b *build) bare(ctx context.Context) (record, error) {
	if b.base.built != "" {
		return b.store.record(b.base.built)
	}
	return b.store.image(ctx, b.plan.withoutImages(), b.base, b.say)
}

// withImages makes an image of the same one without Docker images, and these.
func (b *build) withImages(ctx context.Context) (record, error) {
	r, err := b.bare(ctx)
	if err != nil {
		return record{}, err
	}
	config, err := b.store.configOf(r)
	if err != nil {
		return record{}, err
	}
	// a name of its own: the other image may be removed meanwhile
	if err := os.Link(b.store.Root(r.Image.ID), b.ws.path("base.erofs")); err != nil {
		return record{}, diskError(err, "linking the file system that Docker images come into")
	}
	top, err := b.pullInside(ctx, b.ws.path("base.erofs"), r.Image.Env)
	if err != nil {
		return record{}, err
	}
	r.Layers = append(slices.Clone(r.Layers), top)
	if err := b.makeRoot(ctx, content{layers: r.Layers}); err != nil {
		return record{}, err
	}
	config.History = append(config.History, v1.History{CreatedBy: "docker pull " + strings.Join(b.plan.images, " ")})
	if err := b.artifact(&r, content{layers: r.Layers, config: config}); err != nil {
		return record{}, err
	}
	return b.publish(r)
}

// makeRoot makes the image's EROFS file of layers, of which some may still be
// on their way.
func (b *build) makeRoot(ctx context.Context, c content) (err error) {
	if c.pulling != nil {
		defer func() { err = c.pulling.stop(err) }()
	}
	out, err := os.OpenFile(b.ws.path("image/root.erofs"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return diskError(err, "making the image's file system")
	}
	defer out.Close()
	start := time.Now()
	b.say.progress("unpack", "Making the root file system of %d layers", len(c.layers))
	next := 0
	made, err := unpack.Process(ctx, out, b.store.limits, func(ctx context.Context) (*unpack.Layer, error) {
		if next == len(c.layers) {
			return nil, nil
		}
		if c.pulling != nil {
			if err := c.pulling.wait(ctx, next); err != nil {
				return nil, err
			}
		}
		l := c.layers[next]
		next++
		blob, err := os.Open(b.store.blobPath(l.Digest))
		if err != nil {
			return nil, innerdock.Internal(err, "reading a layer")
		}
		return &unpack.Layer{Blob: blob, DiffID: l.DiffID}, nil
	})
	if err != nil {
		return err
	}
	if made.Dropped > 0 {
		b.say.progress("unpack", "Left out %d device nodes and FIFOs", made.Dropped)
	}
	b.say.progress("image", "Made the root file system in %.1f s", time.Since(start).Seconds())
	b.store.log.Debug("image unpacked", "image", b.id, "memory", made.Memory, "seconds", time.Since(start).Seconds())
	return nil
}

// publish completes the record and puts the image into the store.
func (b *build) publish(r record) (record, error) {
	digest, size, err := hashFile(b.ws.path("image/root.erofs"))
	if err != nil {
		return record{}, diskError(err, "writing the image to disk")
	}
	r.Image.ID, r.Image.Digest, r.Image.Size = b.id, digest, size
	r.Image.Base, r.Image.Source = b.base.Ref, b.base.Source
	if b.base.Source == sourceDebian {
		r.Image.Base = "debian:" + b.base.Debian.Suite
	}
	now := time.Now().UTC()
	r.Image.CreatedAt, r.Image.UsedAt, r.Image.Cached = now, now, false
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return record{}, innerdock.Internal(err, "describing the image")
	}
	err = writeSynced(b.ws.path("image/image.json"), append(data, '\n'))
	if err == nil {
		err = durable.Sync(b.ws.path("image"))
	}
	if err == nil {
		err = durable.Publish(b.ws.path("image"), b.store.imageDir(b.id))
	}
	return r, diskError(err, "storing the image")
}

// hashFile syncs a file and hashes it meanwhile.
func hashFile(path string) (digest string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	synced := make(chan error, 1)
	go func() { synced <- f.Sync() }()
	sum := sha256.New()
	size, err = io.CopyBuffer(sum, struct{ io.Reader }{f}, make([]byte, 1<<20))
	err = errors.Join(err, <-synced, f.Close())
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), size, err
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

// pairs are KEY=value, sorted.
func pairs(env map[string]string) []string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(env)) {
		all = append(all, k+"="+env[k])
	}
	return all
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
