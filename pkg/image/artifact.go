package image

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"os"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/innerdock/innerdock"
)

// artifact stores the image's configuration and manifest as registries have them.
func (b *build) artifact(r *record, c content) error {
	config, manifest := c.rawConfig, c.manifest
	if config == nil {
		file := c.config.DeepCopy()
		file.OS, file.Architecture, file.RootFS = "linux", runtime.GOARCH, v1.RootFS{Type: "layers"}
		for _, l := range c.layers {
			hash, err := v1.NewHash(l.DiffID)
			if err != nil {
				return innerdock.Internal(err, "describing the image")
			}
			file.RootFS.DiffIDs = append(file.RootFS.DiffIDs, hash)
		}
		var err error
		if config, err = json.Marshal(file); err != nil {
			return innerdock.Internal(err, "describing the image")
		}
	}
	var err error
	if r.Config, err = b.storeBlob(config); err != nil {
		return err
	}
	if manifest == nil {
		if manifest, err = manifestOf(c.layers, r.Config, int64(len(config))); err != nil {
			return innerdock.Internal(err, "describing the image")
		}
	}
	r.Manifest, err = b.storeBlob(manifest)
	return err
}

func manifestOf(layers []layer, config string, size int64) ([]byte, error) {
	hash, err := v1.NewHash(config)
	if err != nil {
		return nil, err
	}
	m := v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: []v1.Descriptor{},
		Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Digest: hash, Size: size},
	}
	for _, l := range layers {
		if hash, err = v1.NewHash(l.Digest); err != nil {
			return nil, err
		}
		// What this store compresses by itself is zstd.
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: cmp.Or(l.MediaType, types.OCILayerZStd), Digest: hash, Size: l.Size})
	}
	return json.Marshal(m)
}

// storeBlob puts something small into the store.
func (b *build) storeBlob(data []byte) (digest string, err error) {
	blob, err := b.ws.blob()
	if err != nil {
		return "", err
	}
	defer blob.discard()
	if _, err := blob.Write(data); err != nil {
		return "", diskError(err, "describing the image")
	}
	return blob.digest(), blob.commit(b.store)
}

// stored is an image of the store as go-containerregistry sees images.
type stored struct {
	store            *Store
	config, manifest []byte
	layers           map[string]layer
}

var _ partial.CompressedImageCore = (*stored)(nil)

// artifactOf returns an image to be read while the store is in use.
func (s *Store) artifactOf(r record) (*stored, error) {
	if r.Manifest == "" {
		return nil, innerdock.Errorf(innerdock.CodeUnsupported, "the image %s is of an earlier version of innerdock, which kept no manifest; build it again", r.Image.ID)
	}
	a := &stored{store: s, layers: map[string]layer{}}
	for _, l := range r.Layers {
		a.layers[l.Digest] = l
	}
	var err error
	if a.config, err = os.ReadFile(s.blobPath(r.Config)); err == nil {
		a.manifest, err = os.ReadFile(s.blobPath(r.Manifest))
	}
	if err != nil {
		return nil, innerdock.Internal(err, "reading an image's manifest")
	}
	return a, nil
}

func (a *stored) RawConfigFile() ([]byte, error) { return a.config, nil }
func (a *stored) RawManifest() ([]byte, error)   { return a.manifest, nil }

func (a *stored) MediaType() (types.MediaType, error) {
	m, err := v1.ParseManifest(bytes.NewReader(a.manifest))
	if err != nil {
		return "", err
	}
	return cmp.Or(m.MediaType, types.OCIManifestSchema1), nil
}

func (a *stored) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	return storedLayer{a.store, a.layers[h.String()], h}, nil
}

type storedLayer struct {
	store *Store
	layer layer
	hash  v1.Hash
}

func (l storedLayer) Digest() (v1.Hash, error) { return l.hash, nil }
func (l storedLayer) Compressed() (io.ReadCloser, error) {
	return os.Open(l.store.blobPath(l.layer.Digest))
}
func (l storedLayer) Size() (int64, error) { return l.layer.Size, nil }
func (l storedLayer) MediaType() (types.MediaType, error) {
	return cmp.Or(l.layer.MediaType, types.OCILayerZStd), nil
}

// configOf returns an image's configuration.
func (s *Store) configOf(r record) (*v1.ConfigFile, error) {
	a, err := s.artifactOf(r)
	if err != nil {
		return nil, err
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(a.config))
	if err != nil {
		return nil, innerdock.Internal(err, "reading an image's configuration")
	}
	return config, nil
}

// History returns how an image came to be, the last step first.
func (s *Store) History(_ context.Context, id string) ([]innerdock.ImageLayer, error) {
	r, err := s.record(id)
	if err != nil {
		return nil, err
	}
	config, err := s.configOf(r)
	if err != nil {
		return nil, err
	}
	var lines []innerdock.ImageLayer
	next := 0
	for _, h := range config.History {
		line := innerdock.ImageLayer{CreatedBy: h.CreatedBy, CreatedAt: h.Created.Time, Comment: h.Comment}
		if !h.EmptyLayer && next < len(r.Layers) {
			line.Digest, line.Size = r.Layers[next].Digest, r.Layers[next].Size
			next++
		}
		lines = append(lines, line)
	}
	for _, l := range r.Layers[next:] { // of an image that tells less than it has
		lines = append(lines, innerdock.ImageLayer{Digest: l.Digest, Size: l.Size})
	}
	for i, j := 0, len(lines)-1; i < j; i, j = i+1, j-1 {
		lines[i], lines[j] = lines[j], lines[i]
	}
	return lines, nil
}
