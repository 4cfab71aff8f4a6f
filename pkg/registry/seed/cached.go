package seed

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/innerdock/innerdock"
)

// cached returns the image that was made of the same inputs before, or makes it
// with a directory to work in, and keeps it below dir as an OCI layout.
func cached(dir, name string, inputs any, make func(work string) (v1.Image, error)) (v1.Image, error) {
	key, err := json.Marshal([]any{runtime.GOARCH, inputs})
	if err != nil {
		return nil, innerdock.Internal(err, "hashing the inputs of the image "+name)
	}
	sum := sha256.Sum256(key)
	path := filepath.Join(dir, name+"-"+hex.EncodeToString(sum[:8]))
	if img, err := Load(path); err == nil {
		return img, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, innerdock.Internal(err, "making the image "+name)
	}
	temp, err := os.MkdirTemp(dir, ".new-")
	if err != nil {
		return nil, innerdock.Internal(err, "making the image "+name)
	}
	defer func() { _ = os.RemoveAll(temp) }()
	img, err := make(temp)
	if err != nil {
		return nil, err
	}
	if err := save(img, filepath.Join(temp, "layout"), path); err != nil {
		return nil, innerdock.Internal(err, "keeping the image "+name)
	}
	img, err = Load(path)
	if err != nil {
		return nil, innerdock.Internal(err, "reading the image "+name)
	}
	return img, nil
}

// Load returns the image of an OCI layout that holds one.
func Load(path string) (v1.Image, error) {
	index, err := layout.ImageIndexFromPath(path)
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	if len(manifest.Manifests) != 1 {
		return nil, errors.New("not a layout of one image")
	}
	return index.Image(manifest.Manifests[0].Digest)
}

// save writes the image to temp and moves it to path as one step. Another
// process that was quicker wins.
func save(img v1.Image, temp, path string) error {
	to, err := layout.Write(temp, empty.Index)
	if err != nil {
		return err
	}
	if err := to.AppendImage(img); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		if _, loadErr := Load(path); loadErr != nil {
			return err
		}
	}
	return nil
}
