package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/innerdock/innerdock"
)

// Seed puts an image into the store under ref, a name of Docker Hub such as
// nginx or nginx:latest, in place of what was seeded under that name before. It
// is served whenever upstream does not answer for the name, and always by its
// digest; it is never removed to make room. Errors: CodeInvalid for another
// registry's name.
func (c *Cache) Seed(ctx context.Context, ref string, img v1.Image) error {
	tag, err := hubTag(ref)
	if err != nil {
		return err
	}
	c.seeding.Lock()
	defer c.seeding.Unlock()
	if err := c.seed(ctx, tag, img); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return innerdock.Internal(err, "storing the image "+ref)
	}
	return nil
}

// Seeded tells whether an image was seeded under ref.
func (c *Cache) Seeded(ref string) bool {
	tag, err := hubTag(ref)
	return err == nil && c.store.seeded(tag)
}

// hubTag is the full name of a tag of Docker Hub: docker.io/library/nginx:latest.
func hubTag(ref string) (string, error) {
	tag, err := name.NewTag(ref)
	if err != nil || tag.RegistryStr() != name.DefaultRegistry {
		return "", innerdock.Errorf(innerdock.CodeInvalid,
			"%q is not a name with a tag on Docker Hub, such as nginx:latest", ref)
	}
	return refPrefix + tag.RepositoryStr() + ":" + tag.TagStr(), nil
}

func (c *Cache) seed(ctx context.Context, tag string, img v1.Image) error {
	manifest, err := img.RawManifest()
	if err != nil {
		return err
	}
	if mediaType(manifest) == "" {
		return errors.New("not an image manifest")
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	needed := []string{digestOf(manifest), digestOf(config)}
	for _, layer := range layers {
		digest, err := layer.Digest()
		if err != nil {
			return err
		}
		needed = append(needed, digest.String())
	}
	repository, _ := cutTag(tag)
	c.store.pin(repository, needed)
	for _, layer := range layers {
		if err := c.seedLayer(ctx, layer); err != nil {
			return err
		}
	}
	if _, err := c.store.put(config); err != nil {
		return err
	}
	digest, err := c.store.put(manifest)
	if err != nil {
		return err
	}
	return c.store.tag(tag, digest, manifest, true)
}

func (c *Cache) seedLayer(ctx context.Context, layer v1.Layer) error {
	digest, err := layer.Digest()
	if err != nil || c.store.has(digest.String()) {
		return err
	}
	content, err := layer.Compressed()
	if err != nil {
		return err
	}
	defer func() { _ = content.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = content.Close() })
	defer stop()
	file, err := c.store.temp()
	if err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(file, sum), content); err != nil {
		discard(file)
		return err
	}
	if "sha256:"+hex.EncodeToString(sum.Sum(nil)) != digest.String() {
		discard(file)
		return errDigest
	}
	return c.store.commit(file, digest.String())
}
