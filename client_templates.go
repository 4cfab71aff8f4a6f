package innerdock

import (
	"context"
	"net/http"
	"net/url"
)

// CreateTemplate has the server make the template of a kind of sandbox, and
// returns it when sandboxes start from it; one that is there is returned at once.
// Templates are for administrators.
func (c *Client) CreateTemplate(ctx context.Context, spec TemplateSpec) (Template, error) {
	return fetch[Template](ctx, c, call{method: http.MethodPost, path: "/v1/templates", content: spec})
}

// Templates lists the templates, oldest first.
func (c *Client) Templates(ctx context.Context) ([]Template, error) {
	list, err := get[struct{ Templates []Template }](ctx, c, "/v1/templates", nil)
	return list.Templates, err
}

// DeleteTemplate removes a template. The next sandbox of its kind is started cold
// and has it made again.
func (c *Client) DeleteTemplate(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: "/v1/templates/" + url.PathEscape(id)})
}
