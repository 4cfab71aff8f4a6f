package innerdock

import (
	"context"
	"net/http"
	"time"
)

// SeedRegistry puts images made on the server's machine into the sandboxes'
// registry cache, and calls progress, if there is one, with each line of it.
func (c *Client) SeedRegistry(ctx context.Context, spec SeedSpec, progress func(event string, e BuildEvent)) error {
	_, err := c.follow(ctx, call{method: http.MethodPost, path: "/v1/registry/seed", content: spec, accept: eventStream}, "done", progress)
	return err
}

// RegistryUsage says what the sandboxes' registry cache holds. Like all of the
// registry cache it is for administrators.
func (c *Client) RegistryUsage(ctx context.Context) (RegistryUsage, error) {
	return get[RegistryUsage](ctx, c, "/v1/registry", nil)
}

// RegistryImages lists the images in the registry cache.
func (c *Client) RegistryImages(ctx context.Context) ([]RegistryImage, error) {
	list, err := get[struct{ Images []RegistryImage }](ctx, c, "/v1/registry/images", nil)
	return list.Images, err
}

// PruneRegistry removes from the registry cache what nobody has pulled for a
// time; 0 is everything but seeded images and what is being sent.
func (c *Client) PruneRegistry(ctx context.Context, unused time.Duration) (RegistryPruned, error) {
	return fetch[RegistryPruned](ctx, c, call{method: http.MethodPost, path: "/v1/registry/prune",
		content: PruneSpec{Unused: int64(unused / time.Second)}})
}
