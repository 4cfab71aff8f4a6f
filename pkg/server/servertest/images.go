package servertest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/innerdock/innerdock"
)

// Images has images that are names. These bases behave in ways of their own:
//
//	missing:latest   does not exist
//	broken:latest    fails in a step
//	slow:latest      is built until the request ends
type Images struct {
	mu      sync.Mutex
	all     map[string]innerdock.Image
	Stopped chan struct{} // receives when the build of slow:latest ends
}

// NewImages has none at first.
func NewImages() *Images {
	return &Images{all: map[string]innerdock.Image{}, Stopped: make(chan struct{}, 1)}
}

// Build reports some events.
func (i *Images) Build(ctx context.Context, def innerdock.ImageDefinition, progress func(string, innerdock.BuildEvent)) (innerdock.Image, error) {
	if (def.BaseImage == "") == (def.PythonVersion == "") {
		return innerdock.Image{}, innerdock.Errorf(innerdock.CodeInvalid, "give either python_version or base_image")
	}
	if def.BaseImage == "missing:latest" {
		return innerdock.Image{}, innerdock.Errorf(innerdock.CodeImageNotFound, "no registry has %s", def.BaseImage)
	}
	content, err := json.Marshal(def)
	if err != nil {
		return innerdock.Image{}, err
	}
	id := fmt.Sprintf("sha256:%x", sha256.Sum256(content))
	i.mu.Lock()
	image, ok := i.all[id]
	i.mu.Unlock()
	if ok {
		image.Cached = true
		return image, nil
	}
	progress("progress", innerdock.BuildEvent{Step: "base", Message: "pulling " + def.BaseImage + def.PythonVersion})
	for n := range def.Steps {
		progress("log", innerdock.BuildEvent{Step: fmt.Sprintf("step %d/%d", n+1, len(def.Steps)), Message: "working"})
	}
	switch def.BaseImage {
	case "broken:latest":
		return innerdock.Image{}, innerdock.Errorf(innerdock.CodeImageBuildFailed, "step 1/1 exited with 1: working")
	case "slow:latest":
		<-ctx.Done()
		i.Stopped <- struct{}{}
		return innerdock.Image{}, ctx.Err()
	}
	image = innerdock.Image{
		ID: id, Digest: id, Base: def.BaseImage + def.PythonVersion, Source: "registry", Size: 123 << 20, CreatedAt: time.Now().UTC(),
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.all[id] = image
	return image, nil
}

// Get returns one.
func (i *Images) Get(_ context.Context, id string) (innerdock.Image, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	image, ok := i.all[id]
	if !ok {
		return image, innerdock.Errorf(innerdock.CodeImageNotFound, "no image %s; `innerdock image ls` lists them", id)
	}
	return image, nil
}

// List returns all.
func (i *Images) List(context.Context) ([]innerdock.Image, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	var all []innerdock.Image
	for _, id := range slices.Sorted(maps.Keys(i.all)) {
		all = append(all, i.all[id])
	}
	return all, nil
}

// Remove forgets one.
func (i *Images) Remove(ctx context.Context, id string) error {
	if _, err := i.Get(ctx, id); err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.all, id)
	return nil
}

// Keys has keys in memory.
type Keys struct {
	mu  sync.Mutex
	all []heldKey
}

type heldKey struct {
	innerdock.KeyInfo
	hash [sha256.Size]byte
}

// Tenant says whose a key is.
func (k *Keys) Tenant(_ context.Context, key string) (string, error) {
	hash := sha256.Sum256([]byte(key))
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, held := range k.all {
		if held.hash == hash {
			return held.Tenant, nil
		}
	}
	return "", innerdock.Errorf(innerdock.CodeUnauthorized, "this API key is not known")
}

// CreateKey makes one.
func (k *Keys) CreateKey(_ context.Context, name, tenant string) (string, innerdock.KeyInfo, error) {
	key := "idk_" + rand.Text()
	hash := sha256.Sum256([]byte(key))
	info := innerdock.KeyInfo{ID: fmt.Sprintf("%x", hash[:6]), Name: name, Tenant: tenant, CreatedAt: time.Now().UTC()}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.all = append(k.all, heldKey{info, hash})
	return key, info, nil
}

// Keys lists them.
func (k *Keys) Keys(context.Context) ([]innerdock.KeyInfo, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []innerdock.KeyInfo
	for _, held := range k.all {
		all = append(all, held.KeyInfo)
	}
	return all, nil
}

// RevokeKey forgets one.
func (k *Keys) RevokeKey(_ context.Context, id string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	before := len(k.all)
	k.all = slices.DeleteFunc(k.all, func(held heldKey) bool { return held.ID == id })
	if len(k.all) == before {
		return innerdock.Errorf(innerdock.CodeNotFound, "no key %q", id)
	}
	return nil
}
