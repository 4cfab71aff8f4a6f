package registry

import (
	"context"
	"errors"
	"net/http"
)

// Reachable reports whether upstream answers at all, were it with an error.
func (c *Cache) Reachable(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, revalidateTimeout)
	defer cancel()
	response, err := c.upstream.do(ctx, http.MethodHead, "library/hello-world", "manifests/latest", nil)
	if err == nil {
		_ = response.Body.Close()
	}
	var answer *statusError
	return err == nil || errors.As(err, &answer)
}
