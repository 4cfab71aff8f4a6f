package server

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/innerdock/innerdock"
)

// Registry is the sandboxes' registry cache. Seed puts images into it that were
// made on this machine, for places that cannot reach a registry.
type Registry interface {
	Seed(ctx context.Context, spec innerdock.SeedSpec, progress func(line string)) error
	Usage() innerdock.RegistryUsage
	Images() []innerdock.RegistryImage
	Prune(ctx context.Context, unused time.Duration) (innerdock.RegistryPruned, error)
}

type registryList struct {
	Images []innerdock.RegistryImage `json:"images" nullable:"false"`
}

func (s *Server) addRegistry() {
	tags := []string{"registry"}
	handle(s, huma.Operation{
		OperationID: "seedRegistry", Method: http.MethodPost, Path: "/v1/registry/seed", Tags: tags,
		Summary: "Put images made on this machine into the registry cache",
		Description: "For administrators. hello-world comes from innerdock itself, busybox and nginx are made from Debian's packages. " +
			"Server-sent events named progress, then done or error; the data of each is a BuildEvent.",
		Responses: map[string]*huma.Response{"200": s.eventStream("BuildEvent", s.refTo(innerdock.BuildEvent{}), "progress", "done", "error")},
	}, func(ctx context.Context, who principal, in *bodyOf[innerdock.SeedSpec]) (*streamed, error) {
		if err := who.needAdmin(); err != nil {
			return nil, err
		}
		return s.stream(ctx, func(emit emitter) (string, innerdock.BuildEvent, error) {
			err := s.registry.Seed(ctx, in.Body, func(line string) {
				emit("progress", innerdock.BuildEvent{Step: "seed", Message: line})
			})
			return "done", innerdock.BuildEvent{Step: "seed", Message: "the registry cache is ready"}, err
		})
	})
	handle(s, huma.Operation{
		OperationID: "registryUsage", Method: http.MethodGet, Path: "/v1/registry", Tags: tags,
		Summary: "Show what the registry cache holds", Description: "For administrators.",
	}, func(_ context.Context, who principal, _ *nothing) (*bodyOf[innerdock.RegistryUsage], error) {
		if err := who.needAdmin(); err != nil {
			return nil, err
		}
		return &bodyOf[innerdock.RegistryUsage]{s.registry.Usage()}, nil
	})
	handle(s, huma.Operation{
		OperationID: "listRegistryImages", Method: http.MethodGet, Path: "/v1/registry/images", Tags: tags,
		Summary: "List the images in the registry cache", Description: "For administrators. Those that were pulled by a tag, and the seeded ones.",
	}, func(_ context.Context, who principal, _ *nothing) (*bodyOf[registryList], error) {
		if err := who.needAdmin(); err != nil {
			return nil, err
		}
		return &bodyOf[registryList]{registryList{s.registry.Images()}}, nil
	})
	handle(s, huma.Operation{
		OperationID: "pruneRegistry", Method: http.MethodPost, Path: "/v1/registry/prune", Tags: tags,
		Summary:     "Remove what was pulled from the registry cache",
		Description: "For administrators. Seeded images stay, and what is being sent to a sandbox.",
	}, func(ctx context.Context, who principal, in *bodyOf[innerdock.PruneSpec]) (*bodyOf[innerdock.RegistryPruned], error) {
		if err := who.needAdmin(); err != nil {
			return nil, err
		}
		pruned, err := s.registry.Prune(ctx, time.Duration(in.Body.Unused)*time.Second)
		return &bodyOf[innerdock.RegistryPruned]{pruned}, err
	})
}
