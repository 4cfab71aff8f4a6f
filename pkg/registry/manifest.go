package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"
)

func (c *Cache) serveManifest(w http.ResponseWriter, r *http.Request, route route) {
	content, err := c.manifest(r.Context(), route)
	if err != nil {
		if r.Context().Err() == nil {
			c.log.WarnContext(r.Context(), "image cache: no manifest", "image", route.name(), "error", err)
			c.missing(w, route, err)
		}
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
	if route.digest != "" {
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
			return c.fetchManifest(route, route.digest)
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

// resolveTag asks upstream what a tag means, and falls back on the store.
func (c *Cache) resolveTag(route route) ([]byte, error) {
	ref := "docker.io/" + route.repository + ":" + route.tag
	stored, have := c.store.resolve(ref)
	if !have {
		return c.fetchTag(route, ref)
	}
	ctx, cancel := context.WithTimeout(c.ctx, revalidateTimeout)
	defer cancel()
	current, err := c.upstream.digestOf(ctx, route.repository, route.tag)
	if err == nil && current != stored {
		if content, err := c.fetchTag(route, ref); err == nil {
			return content, nil
		}
	}
	if err != nil {
		c.log.Debug("image cache: upstream gave no answer for a tag, the stored image is served",
			"image", route.name(), "error", err)
	}
	return c.store.read(stored)
}

func (c *Cache) fetchTag(route route, ref string) ([]byte, error) {
	content, err := c.fetchManifest(route, route.tag)
	if err != nil {
		return nil, err
	}
	if err := c.store.tag(ref, digestOf(content), content, false); err != nil {
		c.log.Warn("image cache: a tag was not stored", "image", route.name(), "error", err)
	}
	return content, nil
}

// fetchManifest fetches, checks and stores a manifest.
func (c *Cache) fetchManifest(route route, reference string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(c.ctx, manifestTimeout)
	defer cancel()
	content, claimed, err := c.upstream.manifest(ctx, route.repository, reference)
	if err != nil {
		return nil, err
	}
	digest := digestOf(content)
	if (claimed != "" && claimed != digest) || (route.digest != "" && route.digest != digest) {
		return nil, errDigest
	}
	if mediaType(content) == "" {
		return nil, errors.New("upstream sent something that is not an image manifest")
	}
	if _, err := c.store.put(content); err != nil {
		return nil, fmt.Errorf("storing a manifest: %w", err)
	}
	return content, nil
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
