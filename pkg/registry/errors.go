package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// The registry protocol's error codes that the cache gives.
const (
	codeManifestUnknown = "MANIFEST_UNKNOWN"
	codeBlobUnknown     = "BLOB_UNKNOWN"
	codeUnsupported     = "UNSUPPORTED"
)

var (
	errUnreachable = errors.New("upstream cannot be reached")
	errClosed      = errors.New("the cache is closed")
	errStore       = errors.New("storing it failed")
	errTooLarge    = errors.New("larger than the cache takes")
	errDigest      = errors.New("upstream sent other content than its digest names")
)

// statusError is an answer of upstream other than success.
type statusError struct{ status int }

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
func (c *Cache) missing(w http.ResponseWriter, route route, cause error) {
	code := codeManifestUnknown
	if route.blob {
		code = codeBlobUnknown
	}
	host := c.upstream.host()
	var answer *statusError
	message := fmt.Sprintf("%s could not be fetched from %s: %v", route.name(), host, cause)
	switch {
	case errors.Is(cause, errUnreachable):
		message = fmt.Sprintf("%s is not in innerdock's image cache, and %s cannot be reached from the server: "+
			"check the server's network, or bring the image along with `docker load`", route.name(), host)
	case errors.As(cause, &answer) && answer.status == http.StatusTooManyRequests:
		message = fmt.Sprintf("%s limits how often images are pulled without an account, and the limit is reached: "+
			"try again later, or `docker login` in the sandbox", host)
	case errors.As(cause, &answer) && isRefusal(answer.status):
		message = fmt.Sprintf("%s has no public image %s: check the name, or `docker login` in the sandbox if it is private",
			host, route.name())
	}
	refuse(w, http.StatusNotFound, code, message)
}

func isRefusal(status int) bool {
	return status == http.StatusNotFound || status == http.StatusUnauthorized || status == http.StatusForbidden
}
