package cli

import (
	"context"

	"github.com/innerdock/innerdock"
)

// openBackend opens what the server serves, in the order of need; parts.Close
// closes it in the reverse order and leaves the sandboxes running.
func openBackend(_ context.Context, _ serverConfig) (*parts, error) {
	return nil, innerdock.Errorf(innerdock.CodeUnsupported, "this build has no backend")
}
