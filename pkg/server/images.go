package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/innerdock/innerdock"
)

type imageList struct {
	Images []innerdock.Image `json:"images" nullable:"false"`
}

type byImage struct {
	ID string `path:"id" doc:"sha256:…"`
}

func (s *Server) addImages() {
	tags := []string{"images"}
	s.addBuild(tags)
	handle(s, huma.Operation{
		OperationID: "listImages", Method: http.MethodGet, Path: "/v1/images", Tags: tags, Summary: "List images",
		Description: "For the server's own tenant.",
	}, func(ctx context.Context, who principal, _ *nothing) (*bodyOf[imageList], error) {
		if err := who.needOwner(); err != nil {
			return nil, err
		}
		images, err := s.images.List(ctx)
		if images == nil {
			images = []innerdock.Image{}
		}
		return &bodyOf[imageList]{imageList{images}}, err
	})
	handle(s, huma.Operation{
		OperationID: "getImage", Method: http.MethodGet, Path: "/v1/images/{id}", Tags: tags, Summary: "Get an image",
	}, func(ctx context.Context, _ principal, in *byImage) (*bodyOf[innerdock.Image], error) {
		image, err := s.images.Get(ctx, in.ID)
		return &bodyOf[innerdock.Image]{image}, err
	})
	handle(s, huma.Operation{
		OperationID: "removeImage", Method: http.MethodDelete, Path: "/v1/images/{id}", Tags: tags, Summary: "Remove an image",
		Description: "For the server's own tenant.", DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, who principal, in *byImage) (*nothing, error) {
		if err := who.needOwner(); err != nil {
			return nil, err
		}
		return nil, s.images.Remove(ctx, in.ID)
	})
}

// addBuild adds the build of an image, which streams its progress.
func (s *Server) addBuild(tags []string) {
	op := huma.Operation{
		OperationID: "buildImage", Method: http.MethodPost, Path: "/v1/images", Tags: tags, Summary: "Build an image",
		Description: "Server-sent events named progress and log, then image or error; the data of each is a BuildEvent. " +
			"An image that is there already is answered at once, as cached. Errors before the first event are plain errors.",
		Responses: map[string]*huma.Response{"200": s.eventStream("BuildEvent", s.refTo(innerdock.BuildEvent{}), "progress", "log", "image", "error")},
	}
	handle(s, op, func(ctx context.Context, _ principal, in *bodyOf[innerdock.ImageDefinition]) (*streamed, error) {
		return s.stream(ctx, func(emit emitter) (string, innerdock.BuildEvent, error) {
			image, err := s.images.Build(ctx, in.Body, emit)
			return "image", innerdock.BuildEvent{Image: &image}, err
		})
	})
}
