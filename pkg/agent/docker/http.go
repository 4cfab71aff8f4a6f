package docker

import (
	"encoding/json"
	"net/http"
	"strconv"
	"sync"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/process"
	"github.com/innerdock/innerdock/pkg/agent/reply"
	"github.com/innerdock/innerdock/pkg/agent/wire"
)

// Register adds Docker's routes to mux.
func (s *Supervisor) Register(mux *http.ServeMux) {
	mux.Handle("POST "+wire.PathDockerStart, reply.Handler(s.start))
	mux.Handle("POST "+wire.PathDockerStop, reply.Handler(s.stopped))
	mux.Handle("POST "+wire.PathDockerKeep, reply.Handler(s.kept))
	mux.Handle("GET "+wire.PathDockerState, reply.Handler(s.state))
	mux.Handle("GET /docker/logs", reply.Handler(s.logs))
}

// start streams the steps. A start that fails is told as an event: only a
// request that cannot be right is an error.
func (s *Supervisor) start(w http.ResponseWriter, r *http.Request) error {
	var req wire.DockerStart
	if err := reply.Body(w, r, 64<<10, &req); err != nil {
		return err
	}
	if err := valid(req); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	controller := http.NewResponseController(w)
	encoder := json.NewEncoder(w)
	var told sync.Once
	emit := func(e wire.DockerEvent) {
		if e.Error != "" {
			told.Do(func() {})
		}
		_ = encoder.Encode(e)
		controller.Flush()
	}
	if err := s.Start(r.Context(), req, emit); err != nil {
		told.Do(func() { _ = encoder.Encode(wire.DockerEvent{Code: innerdock.CodeOf(err), Error: err.Error()}) })
	}
	return nil
}

func (s *Supervisor) stopped(w http.ResponseWriter, r *http.Request) error {
	if err := s.Stop(r.Context()); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Supervisor) kept(w http.ResponseWriter, r *http.Request) error {
	if err := s.Keep(r.Context()); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Supervisor) state(w http.ResponseWriter, r *http.Request) error {
	wait, err := reply.Wait(r, "wait")
	if err != nil {
		return err
	}
	query := r.URL.Query()
	restarts := AnyRestarts
	if given := query.Get("restarts"); given != "" {
		if restarts, err = strconv.Atoi(given); err != nil {
			return innerdock.Errorf(innerdock.CodeInvalid, "restarts=%q is not a number", given)
		}
	}
	reply.JSON(w, http.StatusOK, s.Await(r.Context(), innerdock.DockerState(query.Get("not")), restarts, wait))
	return nil
}

func (s *Supervisor) logs(w http.ResponseWriter, r *http.Request) error {
	offset, err := reply.Offset(r, "offset")
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	process.Raw(w, s.log, offset)
	return nil
}
