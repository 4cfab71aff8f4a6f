package servertest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	Ended   []string      // tenants whose builders were
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

// BuildFrom reads the files, says how large they are, and builds.
func (i *Images) BuildFrom(ctx context.Context, tenant string, def innerdock.ImageDefinition, files io.Reader, progress func(string, innerdock.BuildEvent)) (innerdock.Image, error) {
	if files == nil {
		return i.Build(ctx, def, progress)
	}
	n, err := io.Copy(io.Discard, files)
	if err != nil {
		return innerdock.Image{}, innerdock.Errorf(innerdock.CodeInvalid, "the files cannot be read: %w", err)
	}
	progress("progress", innerdock.BuildEvent{Step: "files", Message: fmt.Sprintf("%d bytes for %s", n, tenant)})
	return i.Build(ctx, def, progress)
}

// EndBuilder counts.
func (i *Images) EndBuilder(tenant string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.Ended = append(i.Ended, tenant)
	return nil
}

// Find returns what Build has made.
func (i *Images) Find(ctx context.Context, _ string, def innerdock.ImageDefinition) (innerdock.Image, error) {
	content, err := json.Marshal(def)
	if err != nil {
		return innerdock.Image{}, err
	}
	image, err := i.Get(ctx, fmt.Sprintf("sha256:%x", sha256.Sum256(content)))
	image.Cached = true
	return image, err
}

// Dockerfile has the base alone.
func (i *Images) Dockerfile(def innerdock.ImageDefinition) (string, error) {
	return "FROM " + def.BaseImage + def.PythonVersion + "\n", nil
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

// History has one line.
func (i *Images) History(ctx context.Context, id string) ([]innerdock.ImageLayer, error) {
	image, err := i.Get(ctx, id)
	return []innerdock.ImageLayer{{CreatedBy: "made by a test", Size: image.Size}}, err
}

// Prune removes all, or none when something may stay.
func (i *Images) Prune(ctx context.Context, what innerdock.ImagePrune) (innerdock.ImagesPruned, error) {
	pruned := innerdock.ImagesPruned{Images: []innerdock.Image{}}
	all, err := i.List(ctx)
	if err != nil || what.Keep > 0 || what.UnusedFor > 0 {
		return pruned, err
	}
	for _, image := range all {
		pruned.Images, pruned.Freed = append(pruned.Images, image), pruned.Freed+image.Size
		if !what.DryRun {
			err = errors.Join(err, i.Remove(ctx, image.ID))
		}
	}
	return pruned, err
}

// Push says that it did.
func (i *Images) Push(ctx context.Context, id string, to innerdock.ImagePush, progress func(string, innerdock.BuildEvent)) (innerdock.Image, error) {
	image, err := i.Get(ctx, id)
	if err == nil && to.Reference == "" {
		err = innerdock.Errorf(innerdock.CodeInvalid, "reference \"\" is none")
	}
	if err == nil {
		progress("progress", innerdock.BuildEvent{Step: "push", Message: "pushed " + to.Reference})
	}
	return image, err
}

// Export writes the image's ID.
func (i *Images) Export(ctx context.Context, id string, begin func(), archive io.Writer) error {
	image, err := i.Get(ctx, id)
	if err != nil {
		return err
	}
	begin()
	_, err = io.WriteString(archive, image.ID)
	return err
}

// Import takes what Export wrote.
func (i *Images) Import(ctx context.Context, archive io.Reader, _ func(string, innerdock.BuildEvent)) (innerdock.Image, error) {
	id, err := io.ReadAll(archive)
	if err != nil {
		return innerdock.Image{}, err
	}
	return i.Get(ctx, string(id))
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
