package registry

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"time"
)

func (c *Cache) serveBlob(w http.ResponseWriter, r *http.Request, route route) {
	if file, err := c.store.open(route.digest); err == nil {
		defer func() { _ = file.Close() }()
		serveContent(w, r, route.digest, file)
		return
	}
	if r.Method == http.MethodHead {
		c.headBlob(w, r, route)
		return
	}
	follower, err := c.downloads.follow(r.Context(), route)
	if err != nil {
		if r.Context().Err() == nil {
			c.log.WarnContext(r.Context(), "image cache: no blob", "image", route.name(), "error", err)
			c.missing(w, route, err)
		}
		return
	}
	defer follower.close()
	serveContent(w, r, route.digest, follower)
}

// serveContent sends content, or the range asked for. An error in the middle
// ends the connection before the announced length, so that the client sees it.
func serveContent(w http.ResponseWriter, r *http.Request, digest string, content io.ReadSeeker) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", digest)
	w.Header().Set("ETag", `"`+digest+`"`)
	http.ServeContent(w, r, "", time.Time{}, content)
}

// headBlob asks upstream for a blob's size without downloading it.
func (c *Cache) headBlob(w http.ResponseWriter, r *http.Request, route route) {
	ctx, cancel := context.WithTimeout(r.Context(), manifestTimeout)
	defer cancel()
	response, err := c.upstream.do(ctx, http.MethodHead, route.repository, "blobs/"+route.digest, nil)
	if err != nil {
		c.missing(w, route, err)
		return
	}
	_ = response.Body.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", route.digest)
	w.Header().Set("Accept-Ranges", "bytes")
	if response.ContentLength >= 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(response.ContentLength, 10))
	}
}
