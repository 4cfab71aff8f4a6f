package innerdock

import (
	"context"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
)

// BuildImage makes an image, or finds it, and calls progress, if there is one,
// with each progress and log event of the build.
func (c *Client) BuildImage(ctx context.Context, def ImageDefinition, progress func(event string, e BuildEvent)) (Image, error) {
	return c.build(ctx, call{method: http.MethodPost, path: "/v1/images", content: def, accept: eventStream}, progress)
}

func (c *Client) build(ctx context.Context, request call, progress func(event string, e BuildEvent)) (Image, error) {
	last, err := c.follow(ctx, request, "image", progress)
	if err != nil {
		return Image{}, err
	}
	if last.Image == nil {
		return Image{}, Errorf(CodeUnavailable, "the build's last event has no image")
	}
	return *last.Image, nil
}

// BuildImageFrom is BuildImage of a definition that takes files from archive, a
// tar archive of at most MaxContext bytes that is not compressed. What a
// .dockerignore in it names is left out. FindImage, with def.Context, may spare
// its way.
func (c *Client) BuildImageFrom(ctx context.Context, def ImageDefinition, archive io.Reader, progress func(event string, e BuildEvent)) (Image, error) {
	reader, writer := io.Pipe()
	form := multipart.NewWriter(writer)
	go func() { writer.CloseWithError(writeBuild(form, def, archive)) }() // ends with the request's body
	defer func() { _ = reader.Close() }()
	return c.build(ctx, call{method: http.MethodPost, path: "/v1/images/build", body: reader, bodyType: form.FormDataContentType(), accept: eventStream}, progress)
}

// writeBuild writes the parts of a build's request.
func writeBuild(form *multipart.Writer, def ImageDefinition, archive io.Reader) error {
	part, err := form.CreateFormField("definition")
	if err != nil {
		return err
	}
	if err := json.NewEncoder(part).Encode(def); err != nil {
		return err
	}
	if part, err = form.CreateFormFile("context", "context.tar"); err != nil {
		return err
	}
	if _, err := io.Copy(part, archive); err != nil {
		return err
	}
	return form.Close()
}

// EndBuilder ends the caller's builder, and its cache with it, and removes what pip
// has kept. Builds that run fail; the next one starts another builder.
func (c *Client) EndBuilder(ctx context.Context) error {
	return c.do(ctx, call{method: http.MethodDelete, path: "/v1/builder"})
}

// FindImage returns the image of a definition if the server has it, and builds
// nothing: if not, that is CodeImageNotFound.
func (c *Client) FindImage(ctx context.Context, def ImageDefinition) (Image, error) {
	return fetch[Image](ctx, c, call{method: http.MethodPost, path: "/v1/images/find", content: def})
}

// Dockerfile returns the Dockerfile that a definition is.
func (c *Client) Dockerfile(ctx context.Context, def ImageDefinition) (string, error) {
	rendered, err := fetch[struct{ Dockerfile string }](ctx, c, call{method: http.MethodPost, path: "/v1/images/dockerfile", content: def})
	return rendered.Dockerfile, err
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
	return get[Image](ctx, c, imagePath(id, ""), nil)
}

// ImageHistory says how an image came to be, the last step first.
func (c *Client) ImageHistory(ctx context.Context, id string) ([]ImageLayer, error) {
	history, err := get[struct{ Layers []ImageLayer }](ctx, c, imagePath(id, "/history"), nil)
	return history.Layers, err
}

// PushImage pushes an image to a registry, and calls progress as BuildImage does.
func (c *Client) PushImage(ctx context.Context, id string, to ImagePush, progress func(event string, e BuildEvent)) (Image, error) {
	last, err := c.follow(ctx, call{method: http.MethodPost, path: imagePath(id, "/push"), content: to, accept: eventStream}, "image", progress)
	if err != nil {
		return Image{}, err
	}
	if last.Image == nil {
		return Image{}, Errorf(CodeUnavailable, "the push's last event has no image")
	}
	return *last.Image, nil
}

// ExportImage opens an archive of an image, an OCI layout that `docker load` takes
// as well; the caller closes it.
func (c *Client) ExportImage(ctx context.Context, id string) (io.ReadCloser, error) {
	response, err := c.send(ctx, call{method: http.MethodGet, path: imagePath(id, "/archive")})
	if err != nil {
		return nil, err
	}
	return response.Body, nil
}

// ImportImage makes an image of an archive: an OCI layout, or of `docker save`.
func (c *Client) ImportImage(ctx context.Context, archive io.Reader) (Image, error) {
	return fetch[Image](ctx, c, call{method: http.MethodPost, path: "/v1/images/import", body: archive})
}

// PruneImages removes images that no sandbox uses.
func (c *Client) PruneImages(ctx context.Context, what ImagePrune) (ImagesPruned, error) {
	return fetch[ImagesPruned](ctx, c, call{method: http.MethodPost, path: "/v1/images/prune", content: what})
}

func imagePath(id, rest string) string { return "/v1/images/" + url.PathEscape(id) + rest }

// RemoveImage removes an image that no sandbox uses.
func (c *Client) RemoveImage(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: imagePath(id, "")})
}
