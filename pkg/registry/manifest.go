package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/innerdock/innerdock"
)

func (c *Cache) serveManifest(w http.ResponseWriter, r *http.Request, route route) {
	content, err := c.manifest(r.Context(), route)
	if err != nil {
		c.missing(w, r, route, err)
		return
	}
	digest := digestOf(content)
	w.Header().Set("Content-Type", mediaType(content))
	w.Header().Set("Docker-Content-Digest", digest)
	w.Header().Set("ETag", `"`+digest+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

// manifest finds a manifest; requests for the same one share the work, which
// goes on for the others when one of them leaves.
func (c *Cache) manifest(ctx context.Context, route route) ([]byte, error) {
	if route.digest != "" && c.store.has(route.digest) {
		if err := c.permit(ctx, route); err != nil {
			return nil, err
		}
		if content, err := c.store.read(route.digest); err == nil {
			return content, nil
		}
	}
	result := c.manifests.DoChan(route.name(), func() (any, error) {
		if !c.work.begin() {
			return nil, errClosed
		}
		defer c.work.group.Done()
		if route.digest != "" {
			return c.fetchManifest(route)
		}
		return c.resolveTag(route)
	})
	select {
	case got := <-result:
		content, _ := got.Val.([]byte)
		return content, got.Err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// resolveTag asks upstream what a tag means. Where upstream has no answer, what
// was public when it last had one is served; where it has none, what was seeded.
func (c *Cache) resolveTag(route route) ([]byte, error) {
	ref := refPrefix + route.repository + ":" + route.tag
	content, err := c.pulledTag(route, ref)
	if err == nil {
		return content, nil
	}
	if content, ok := c.seededTag(ref); ok {
		return content, nil
	}
	if !isRefusal(err) && c.takeOffer(ref) {
		if content, ok := c.seededTag(ref); ok {
			return content, nil
		}
	}
	return nil, err
}

func (c *Cache) seededTag(ref string) ([]byte, bool) {
	seeded, ok := c.store.resolve(ref, true)
	if !ok {
		return nil, false
	}
	content, err := c.store.read(seeded)
	return content, err == nil
}

// takeOffer seeds what upstream cannot be asked for, if somebody offers it.
func (c *Cache) takeOffer(ref string) bool {
	offers := c.offers.Load()
	if offers == nil {
		return false
	}
	img, release, err := (*offers).Offer(c.ctx, ref)
	if err == nil {
		err = c.Seed(c.ctx, strings.TrimPrefix(ref, refPrefix), img)
		release()
	}
	if err != nil && innerdock.CodeOf(err) != innerdock.CodeImageNotFound {
		c.complain("an image that was offered was not stored", "image", ref, "error", err)
	}
	return err == nil
}

func (c *Cache) pulledTag(route route, ref string) ([]byte, error) {
	stored, have := c.store.resolve(ref, false)
	if !have {
		return c.fetchTag(route, ref)
	}
	ctx, cancel := context.WithTimeout(c.ctx, revalidateTimeout)
	defer cancel()
	current, err := c.upstream.digestOf(ctx, route.repository, route.tag)
	if err == nil && current != stored {
		if content, err := c.fetchTag(route, ref); err == nil || isRefusal(err) {
			return content, err
		}
	}
	switch {
	case isRefusal(err):
		c.refused(route, err)
		return nil, err
	case err == nil && current == stored:
		c.shown(route.repository, stored)
	default:
		c.log.Debug("image cache: upstream gave no answer for a tag, the stored image is served",
			"image", route.name(), "error", err)
	}
	if public, _ := c.store.granted(route.repository, stored); !public {
		return c.fetchTag(route, ref)
	}
	content, err := c.store.read(stored)
	if err != nil { // it was corrupt
		return c.fetchTag(route, ref)
	}
	return content, nil
}

func (c *Cache) fetchTag(route route, ref string) ([]byte, error) {
	content, err := c.fetchManifest(route)
	if err != nil {
		return nil, err
	}
	if digest := digestOf(content); c.store.has(digest) {
		if err := c.store.tag(ref, digest, content, false); err != nil {
			c.complain("a tag was not stored", "image", route.name(), "error", err)
		}
	}
	return content, nil
}

// fetchManifest fetches, checks and stores a manifest. One that cannot be stored
// is served all the same.
func (c *Cache) fetchManifest(route route) ([]byte, error) {
	ctx, cancel := context.WithTimeout(c.ctx, manifestTimeout)
	defer cancel()
	content, claimed, err := c.upstream.manifest(ctx, route.repository, route.tag+route.digest)
	if err != nil {
		if isRefusal(err) {
			c.refused(route, err)
		}
		return nil, err
	}
	digest := digestOf(content)
	if (claimed != "" && claimed != digest) || (route.digest != "" && route.digest != digest) {
		return nil, errDigest
	}
	if mediaType(content) == "" {
		return nil, errors.New("upstream sent something that is not an image manifest")
	}
	if err := c.storeManifest(content); err != nil {
		c.complain("a manifest was not stored", "image", route.name(), "error", err)
	}
	c.shown(route.repository, digest)
	return content, nil
}

func (c *Cache) storeManifest(content []byte) error {
	size := int64(len(content))
	if err := c.store.reserve(size); err != nil {
		return err
	}
	defer c.store.release(size)
	_, err := c.store.put(content)
	return err
}

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// mediaType reads a manifest's type, which the OCI forms need not state; "" for
// what is no manifest of an image or an index.
func mediaType(manifest []byte) string {
	var m struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     types.MediaType `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Config        json.RawMessage `json:"config"`
	}
	switch err := json.Unmarshal(manifest, &m); {
	case err != nil || m.SchemaVersion != 2:
		return ""
	case m.MediaType.IsIndex() || m.MediaType.IsImage():
		return string(m.MediaType)
	case m.MediaType != "":
		return ""
	case m.Manifests != nil:
		return string(types.OCIImageIndex)
	case m.Config != nil:
		return string(types.OCIManifestSchema1)
	}
	return ""
}
