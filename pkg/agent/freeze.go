package agent

import (
	"net/http"
	"runtime/debug"
)

// freeze prepares for a checkpoint, which holds every page that this process has.
// Docker waits for its next start.
func (a *Agent) freeze(w http.ResponseWriter, r *http.Request) error {
	if err := a.docker.Freeze(r.Context()); err != nil {
		return err
	}
	debug.FreeOSMemory()
	w.WriteHeader(http.StatusNoContent)
	return nil
}
