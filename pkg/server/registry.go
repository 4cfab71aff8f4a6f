package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/innerdock/innerdock"
)

// Seeds puts images that were made on this machine into the sandboxes' registry
// cache, for places that cannot reach a registry.
type Seeds interface {
	Seed(ctx context.Context, spec innerdock.SeedSpec, progress func(line string)) error
}

func (s *Server) addRegistry() {
	handle(s, huma.Operation{
		OperationID: "seedRegistry", Method: http.MethodPost, Path: "/v1/registry/seed", Tags: []string{"registry"},
		Summary: "Put images made on this machine into the registry cache",
		Description: "For administrators. hello-world comes from innerdock itself, busybox and nginx are made from Debian's packages. " +
			"Server-sent events named progress, then done or error; the data of each is a BuildEvent.",
		Responses: map[string]*huma.Response{"200": s.eventStream("BuildEvent", s.refTo(innerdock.BuildEvent{}), "progress", "done", "error")},
	}, func(ctx context.Context, who principal, in *bodyOf[innerdock.SeedSpec]) (*streamed, error) {
		if err := who.needAdmin(); err != nil {
			return nil, err
		}
		return s.stream(ctx, func(emit emitter) (string, innerdock.BuildEvent, error) {
			err := s.seeds.Seed(ctx, in.Body, func(line string) {
				emit("progress", innerdock.BuildEvent{Step: "seed", Message: line})
			})
			return "done", innerdock.BuildEvent{Step: "seed", Message: "the registry cache is ready"}, err
		})
	})
}
