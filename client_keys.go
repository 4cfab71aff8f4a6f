package innerdock

import (
	"context"
	"net/http"
	"net/url"
)

// CreateKey makes an API key. Like all of keys it works through the server's
// local socket only.
func (c *Client) CreateKey(ctx context.Context, spec KeySpec) (NewKey, error) {
	return fetch[NewKey](ctx, c, call{method: http.MethodPost, path: "/v1/keys", content: spec})
}

// Keys lists the API keys, without the keys themselves.
func (c *Client) Keys(ctx context.Context) ([]KeyInfo, error) {
	list, err := get[struct{ Keys []KeyInfo }](ctx, c, "/v1/keys", nil)
	return list.Keys, err
}

// RevokeKey makes a key unknown.
func (c *Client) RevokeKey(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: "/v1/keys/" + url.PathEscape(id)})
}
