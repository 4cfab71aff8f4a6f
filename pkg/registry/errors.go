package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// The registry protocol's error codes that the cache gives.
const (
	codeManifestUnknown = "MANIFEST_UNKNOWN"
	codeBlobUnknown     = "BLOB_UNKNOWN"
	codeNameUnknown     = "NAME_UNKNOWN"
	codeUnsupported     = "UNSUPPORTED"
)

var (
	errUnreachable = errors.New("upstream cannot be reached")
	errClosed      = errors.New("the cache is closed")
	errStore       = errors.New("storing it failed")
	errTooLarge    = errors.New("larger than the cache takes")
	errFull        = errors.New("the cache's disk is full")
	errDigest      = errors.New("upstream sent other content than its digest names")
	errCorrupt     = errors.New("a stored blob had other content than its digest names")
)

// statusError is an answer of upstream other than success.
type statusError struct {
	status      int
	after       time.Duration // for which it wants no more requests, if it says so
	nameUnknown bool          // it says that there is no such repository
}

func (e *statusError) Error() string {
	return fmt.Sprintf("upstream answered %d %s", e.status, http.StatusText(e.status))
}

// refuse answers with an error in the protocol's form.
func refuse(w http.ResponseWriter, status int, code, message string) {
	type one struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	body, _ := json.Marshal(map[string][]one{"errors": {{code, message}}})
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// missing answers that the cache cannot give what was asked for, why, and what
// helps. It is always 404: a mirror's 404 sends the daemon to Docker Hub itself.
func (c *Cache) missing(w http.ResponseWriter, r *http.Request, route route, cause error) {
	if r.Context().Err() != nil {
		return // nobody is there any more
	}
	c.log.DebugContext(r.Context(), "image cache: not served", "image", route.name(), "error", cause)
	guestOf(r.Context()).charge(time.Now())
	code := codeManifestUnknown
	if route.blob {
		code = codeBlobUnknown
	}
	refuse(w, http.StatusNotFound, code, c.explain(route, cause))
}

// explain says why something is not served, and what helps.
func (c *Cache) explain(route route, cause error) string {
	host := c.upstream.host()
	var answer *statusError
	switch {
	case errors.Is(cause, errUnreachable):
		return fmt.Sprintf("%s is not in innerdock's image cache, and %s cannot be reached from the server: "+
			"check the server's network, or bring the image along with `docker load`", route.name(), host)
	case errors.As(cause, &answer) && answer.status == http.StatusTooManyRequests:
		return fmt.Sprintf("%s limits how often images are pulled without an account, and the limit is reached: "+
			"try again later, or `docker login` in the sandbox", host)
	case isRefusal(cause):
		return fmt.Sprintf("%s has no public image %s: check the name, or `docker login` in the sandbox if it is private",
			host, route.name())
	}
	return fmt.Sprintf("%s could not be fetched from %s: %v", route.name(), host, cause)
}
