package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"
)

func (c *Cache) serveBlob(w http.ResponseWriter, r *http.Request, route route) {
	if c.store.has(route.digest) {
		if err := c.permit(r.Context(), route); err != nil {
			c.missing(w, r, route, err)
			return
		}
		file, err := c.store.open(route.digest)
		if err == nil {
			defer func() { _ = file.Close() }()
			c.served.Add(1)
			serveContent(w, r, route.digest, file.File)
			return
		}
		if errors.Is(err, errCorrupt) {
			c.complain("a stored blob was corrupt, it is fetched again", "image", route.name())
		}
	}
	if r.Method == http.MethodHead {
		c.headBlob(w, r, route)
		return
	}
	c.fetchBlob(w, r, route)
}

// fetchBlob serves what is not stored: as it comes into the store, or past it.
func (c *Cache) fetchBlob(w http.ResponseWriter, r *http.Request, route route) {
	follower, err := c.downloads.follow(r.Context(), route)
	if err == nil {
		defer follower.close()
		c.served.Add(1)
		serveContent(w, r, route.digest, follower)
		return
	}
	if errors.Is(err, errStore) {
		var passing *passage
		if passing, err = c.pass(r.Context(), route); err == nil {
			defer passing.close()
			c.served.Add(1)
			c.downloaded.Add(1)
			serveContent(w, r, route.digest, passing)
			return
		}
	}
	c.missing(w, r, route, err)
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
		c.missing(w, r, route, err)
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
