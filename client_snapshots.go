package innerdock

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

// Snapshot keeps a running sandbox as it is, its processes included, and lets it
// go on. CreateSandbox with the snapshot's ID makes sandboxes that go on from it.
func (c *Client) Snapshot(ctx context.Context, idOrName string, spec SnapshotSpec) (Snapshot, error) {
	return fetch[Snapshot](ctx, c, call{method: http.MethodPost, path: sandboxPath(idOrName, "/snapshots"), content: spec})
}

// Snapshots lists the snapshots, newest first.
func (c *Client) Snapshots(ctx context.Context) ([]Snapshot, error) {
	list, err := get[struct{ Snapshots []Snapshot }](ctx, c, "/v1/snapshots", nil)
	return list.Snapshots, err
}

// DeleteSnapshot removes a snapshot. Sandboxes that came of it live on.
func (c *Client) DeleteSnapshot(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: "/v1/snapshots/" + url.PathEscape(id)})
}

// ExportSnapshot opens an archive of a snapshot, with its image or not; the caller
// closes it. It holds the memory of the sandbox, secrets included.
func (c *Client) ExportSnapshot(ctx context.Context, id string, withImage bool) (io.ReadCloser, error) {
	query := url.Values{"image": {strconv.FormatBool(withImage)}}
	response, err := c.send(ctx, call{method: http.MethodGet, path: "/v1/snapshots/" + url.PathEscape(id) + "/archive", query: query})
	if err != nil {
		return nil, err
	}
	return response.Body, nil
}

// ImportSnapshot makes a snapshot of an archive of a server with the same runsc.
func (c *Client) ImportSnapshot(ctx context.Context, archive io.Reader) (Snapshot, error) {
	return fetch[Snapshot](ctx, c, call{method: http.MethodPost, path: "/v1/snapshots/import", body: archive})
}

// Commit makes an image of a running sandbox: its own image with what has changed
// below / since, but for /tmp and Docker's data.
func (c *Client) Commit(ctx context.Context, idOrName string) (Image, error) {
	return fetch[Image](ctx, c, call{method: http.MethodPost, path: sandboxPath(idOrName, "/image")})
}

// Fork makes copies of a running sandbox, which goes on. They have no name.
// Either all are made, or none is, as when ctx ends before.
func (c *Client) Fork(ctx context.Context, idOrName string, count int) ([]Sandbox, error) {
	list, err := makeSandboxes[struct{ Sandboxes []Sandbox }](ctx, c, call{method: http.MethodPost, path: sandboxPath(idOrName, "/fork"), content: ForkSpec{Count: count}})
	return list.Sandboxes, err
}
