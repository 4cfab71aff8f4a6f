package innerdock

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

// ReadFile opens a file of a sandbox; the caller closes it. A relative path is
// under /workspace.
func (c *Client) ReadFile(ctx context.Context, idOrName, path string) (io.ReadCloser, error) {
	response, err := c.send(ctx, call{
		method: http.MethodGet, path: sandboxPath(idOrName, "/files/content"), query: url.Values{"path": {path}},
	})
	if err != nil {
		return nil, err
	}
	return response.Body, nil
}

// WriteFile replaces a file by what content has, with permission bits such as
// 0o644. Missing directories are made.
func (c *Client) WriteFile(ctx context.Context, idOrName, path string, mode uint32, content io.Reader) (FileInfo, error) {
	return fetch[FileInfo](ctx, c, call{
		method: http.MethodPut, path: sandboxPath(idOrName, "/files/content"), query: pathAndMode(path, mode), body: content,
	})
}

// MakeDirectory makes a directory and its parents.
func (c *Client) MakeDirectory(ctx context.Context, idOrName, path string, mode uint32) (FileInfo, error) {
	return fetch[FileInfo](ctx, c, call{
		method: http.MethodPost, path: sandboxPath(idOrName, "/files/directory"), query: pathAndMode(path, mode),
	})
}

// File describes a file.
func (c *Client) File(ctx context.Context, idOrName, path string) (FileInfo, error) {
	return get[FileInfo](ctx, c, sandboxPath(idOrName, "/files/info"), url.Values{"path": {path}})
}

// Files lists a directory.
func (c *Client) Files(ctx context.Context, idOrName, path string) ([]FileInfo, error) {
	list, err := get[struct{ Files []FileInfo }](ctx, c, sandboxPath(idOrName, "/files/list"), url.Values{"path": {path}})
	return list.Files, err
}

// RemoveFile removes a file, or with recursive a directory and all that is in it.
func (c *Client) RemoveFile(ctx context.Context, idOrName, path string, recursive bool) error {
	return c.do(ctx, call{
		method: http.MethodDelete, path: sandboxPath(idOrName, "/files"),
		query: url.Values{"path": {path}, "recursive": {strconv.FormatBool(recursive)}},
	})
}

func pathAndMode(path string, mode uint32) url.Values {
	return url.Values{"path": {path}, "mode": {"0" + strconv.FormatUint(uint64(mode), 8)}}
}
