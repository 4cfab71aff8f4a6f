// Package seed makes the images that innerdock can put into its image cache, for
// sandboxes that have no way to Docker Hub: hello-world and testcontainers/ryuk
// from programs of this project, nginx and busybox from Debian's signed packages.
package seed

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/registry"
)

// maker makes one image; all have the same form.
type maker func(ctx context.Context, cacheDir string, progress func(string)) (v1.Image, error)

var makers = map[string]maker{
	"hello-world": func(context.Context, string, func(string)) (v1.Image, error) { return HelloWorld() },
	"busybox":     Busybox,
	"nginx":       Nginx,
	ryuk:          func(context.Context, string, func(string)) (v1.Image, error) { return Reaper() },
}

// tags are those of images that nobody asks for by latest.
var tags = map[string]string{ryuk: ryukTag}

// Names are the images that All knows, the quickest to make first.
func Names() []string { return []string{"hello-world", ryuk, "busybox", "nginx"} }

// All seeds cache with the named images (none: all of Names), each under its name
// and its tag, which is latest for most. Images made from packages are kept in cacheDir, by what
// they are made of; making them the first time takes about a minute and needs
// root. progress is called with lines for people; it may be nil. The images that
// can be made are seeded even if another cannot.
func All(ctx context.Context, cache *registry.Cache, cacheDir string, names []string, progress func(string)) error {
	if len(names) == 0 {
		names = Names()
	}
	if progress == nil {
		progress = func(string) {}
	}
	var first error
	for _, name := range names {
		if err := one(ctx, cache, cacheDir, name, progress); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func one(ctx context.Context, cache *registry.Cache, cacheDir, name string, progress func(string)) error {
	name, tag, _ := strings.Cut(name, ":")
	known := cmp.Or(tags[name], "latest")
	mk, ok := makers[name]
	if !ok || tag != "" && tag != known {
		names := Names()
		slices.Sort(names)
		return innerdock.Errorf(innerdock.CodeInvalid,
			"there is no image %s to seed the cache with; there are %s", name, strings.Join(names, ", "))
	}
	img, err := mk(ctx, cacheDir, progress)
	if err != nil {
		return err
	}
	if err := cache.Seed(ctx, name+":"+known, img); err != nil {
		return err
	}
	progress(fmt.Sprintf("%s:%s is in the image cache", name, known))
	return nil
}
