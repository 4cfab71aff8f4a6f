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
	response, err := c.send(ctx, call{method: http.MethodPost, path: "/v1/images", content: def, accept: eventStream})
	if err != nil {
		return Image{}, err
	}
	defer func() { _ = response.Body.Close() }()
	for event, err := range Events(response.Body) {
		if err != nil {
			return Image{}, c.unreachable(ctx, err)
		}
		var content BuildEvent
		if err := json.Unmarshal(event.Data, &content); err != nil {
			return Image{}, Errorf(CodeUnavailable, "an event of the build cannot be read: %w", err)
		}
		switch {
		case event.Name == "image" && content.Image != nil:
			return *content.Image, nil
		case event.Name == "error" && content.Error != nil:
			return Image{}, content.Error
		case progress != nil:
			progress(event.Name, content)
		}
	}
	if ctx.Err() != nil {
		return Image{}, ctx.Err()
	}
	return Image{}, Errorf(CodeUnavailable, "the build's events ended before the build; ask again, what is done is kept")
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
