package innerdock

import (
	"context"
	"net/http"
	"net/url"
)

// CreatePool has the server keep sandboxes ready: CreateSandbox with the same
// image, memory, disk and Docker takes one, whatever its name, environment, CPU
// and network. Pools are for administrators.
func (c *Client) CreatePool(ctx context.Context, spec PoolSpec) (Pool, error) {
	return fetch[Pool](ctx, c, call{method: http.MethodPost, path: "/v1/pools", content: spec})
}

// Pools lists the pools, oldest first.
func (c *Client) Pools(ctx context.Context) ([]Pool, error) {
	list, err := get[struct{ Pools []Pool }](ctx, c, "/v1/pools", nil)
	return list.Pools, err
}

// DeletePool ends a pool and the sandboxes that wait in it.
func (c *Client) DeletePool(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: "/v1/pools/" + url.PathEscape(id)})
}
