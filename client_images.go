package innerdock

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
)

// BuildImage makes an image, or finds it, and calls progress, if there is one,
// with each progress and log event of the build.
func (c *Client) BuildImage(ctx context.Context, def ImageDefinition, progress func(event string, e BuildEvent)) (Image, error) {
	last, err := c.follow(ctx, call{method: http.MethodPost, path: "/v1/images", content: def, accept: eventStream}, "image", progress)
	if err != nil {
		return Image{}, err
	}
	if last.Image == nil {
		return Image{}, Errorf(CodeUnavailable, "the build's last event has no image")
	}
	return *last.Image, nil
}

// SeedRegistry puts images made on the server's machine into the sandboxes'
// registry cache, and calls progress, if there is one, with each line of it.
func (c *Client) SeedRegistry(ctx context.Context, spec SeedSpec, progress func(event string, e BuildEvent)) error {
	_, err := c.follow(ctx, call{method: http.MethodPost, path: "/v1/registry/seed", content: spec, accept: eventStream}, "done", progress)
	return err
}

// follow sends a request that is answered by events, and returns the one named last.
func (c *Client) follow(ctx context.Context, request call, last string, progress func(event string, e BuildEvent)) (BuildEvent, error) {
	response, err := c.send(ctx, request)
	if err != nil {
		return BuildEvent{}, err
	}
	defer func() { _ = response.Body.Close() }()
	for event, err := range Events(response.Body) {
		if err != nil {
			return BuildEvent{}, c.unreachable(ctx, err)
		}
		var content BuildEvent
		if err := json.Unmarshal(event.Data, &content); err != nil {
			return BuildEvent{}, Errorf(CodeUnavailable, "an event of the server cannot be read: %w", err)
		}
		switch {
		case event.Name == last:
			return content, nil
		case event.Name == "error" && content.Error != nil:
			return BuildEvent{}, content.Error
		case progress != nil:
			progress(event.Name, content)
		}
	}
	if ctx.Err() != nil {
		return BuildEvent{}, ctx.Err()
	}
	return BuildEvent{}, Errorf(CodeUnavailable, "the events ended before the work; ask again, what is done is kept")
}

// Images lists the images in the store.
func (c *Client) Images(ctx context.Context) ([]Image, error) {
	list, err := get[struct{ Images []Image }](ctx, c, "/v1/images", nil)
	return list.Images, err
}

// Image returns an image by its ID.
func (c *Client) Image(ctx context.Context, id string) (Image, error) {
	return get[Image](ctx, c, "/v1/images/"+url.PathEscape(id), nil)
}

// RemoveImage removes an image that no sandbox uses.
func (c *Client) RemoveImage(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: "/v1/images/" + url.PathEscape(id)})
}
