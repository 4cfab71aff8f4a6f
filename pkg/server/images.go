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
	s.addBuildFrom(tags)
	s.addDefinitions(tags)
	s.addTransfers(tags)
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

// addTransfers adds what moves images between this server and elsewhere. Images
// are shared by all tenants: only the owner sees those that others made.
func (s *Server) addTransfers(tags []string) {
	handle(s, huma.Operation{
		OperationID: "getImageHistory", Method: http.MethodGet, Path: "/v1/images/{id}/history", Tags: tags, Summary: "Say how an image came to be",
		Description: "For the server's own tenant. The last step comes first.",
	}, func(ctx context.Context, who principal, in *byImage) (*bodyOf[imageHistory], error) {
		if err := who.needOwner(); err != nil {
			return nil, err
		}
		layers, err := s.images.History(ctx, in.ID)
		return &bodyOf[imageHistory]{imageHistory{layers}}, err
	})
	handle(s, huma.Operation{
		OperationID: "pruneImages", Method: http.MethodPost, Path: "/v1/images/prune", Tags: tags, Summary: "Remove images that no sandbox uses",
		Description: "For the server's own tenant. Without a bound, all of them.",
	}, func(ctx context.Context, who principal, in *bodyOf[innerdock.ImagePrune]) (*bodyOf[innerdock.ImagesPruned], error) {
		if err := who.needOwner(); err != nil {
			return nil, err
		}
		pruned, err := s.images.Prune(ctx, in.Body)
		return &bodyOf[innerdock.ImagesPruned]{pruned}, err
	})
	handle(s, huma.Operation{
		OperationID: "pushImage", Method: http.MethodPost, Path: "/v1/images/{id}/push", Tags: tags, Summary: "Push an image to a registry",
		Description: "For the server's own tenant. Server-sent events named progress, then image or error.",
		Responses:   map[string]*huma.Response{"200": s.eventStream("BuildEvent", s.refTo(innerdock.BuildEvent{}), "progress", "image", "error")},
	}, func(ctx context.Context, who principal, in *pushInput) (*streamed, error) {
		if err := who.needOwner(); err != nil {
			return nil, err
		}
		return s.stream(ctx, func(emit emitter) (string, innerdock.BuildEvent, error) {
			image, err := s.images.Push(ctx, in.ID, in.Body, emit)
			return "image", innerdock.BuildEvent{Image: &image}, err
		})
	})
	s.handleRaw(huma.Operation{
		OperationID: "exportImage", Method: http.MethodGet, Path: "/v1/images/{id}/archive", Tags: tags, Summary: "Export an image",
		Description: "For the server's own tenant. A tar archive: an OCI layout that `docker load` takes as well.",
		Parameters:  s.parameters(pathParameter{"id", huma.TypeString, "sha256:…"}),
		Responses: map[string]*huma.Response{"200": {Description: "The archive", Content: map[string]*huma.MediaType{
			archiveType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}}},
	}, s.exportImage)
	s.handleRaw(huma.Operation{
		OperationID: "importImage", Method: http.MethodPost, Path: "/v1/images/import", Tags: tags, Summary: "Import an image",
		Description: "For the server's own tenant. The body is a tar archive: an OCI layout, or what `docker save` writes.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			archiveType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}},
		Responses: map[string]*huma.Response{"201": {Description: "The image", Content: map[string]*huma.MediaType{
			"application/json": {Schema: s.refTo(innerdock.Image{})}}}},
	}, s.importImage)
}

const archiveType = "application/x-tar"

type (
	imageHistory struct {
		Layers []innerdock.ImageLayer `json:"layers" nullable:"false"`
	}
	pushInput struct {
		ID   string `path:"id" doc:"sha256:…"`
		Body innerdock.ImagePush
	}
)

func (s *Server) exportImage(w http.ResponseWriter, r *http.Request) {
	if err := principalOf(r.Context()).needOwner(); err != nil {
		s.fail(w, r, err)
		return
	}
	s.export(w, r, func(begin func()) error { return s.images.Export(r.Context(), r.PathValue("id"), begin, w) })
}

// export answers with the archive that write writes to w after begin.
func (s *Server) export(w http.ResponseWriter, r *http.Request, write func(begin func()) error) {
	begun := false
	err := write(func() {
		begun = true
		w.Header().Set("Content-Type", archiveType)
	})
	switch {
	case err == nil:
	case begun:
		s.log.Warn("an export broke off", "request_id", innerdock.RequestID(r.Context()), "err", err)
		panic(http.ErrAbortHandler) // the client must not take what it has for the whole
	default:
		s.fail(w, r, err)
	}
}

func (s *Server) importImage(w http.ResponseWriter, r *http.Request) {
	if err := principalOf(r.Context()).needOwner(); err != nil {
		s.fail(w, r, err)
		return
	}
	image, err := s.images.Import(r.Context(), r.Body, nil)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusCreated, image)
}

type dockerfile struct {
	Dockerfile string `json:"dockerfile" doc:"BuildKit's syntax."`
}

// addDefinitions adds what can be said about a definition without building it.
func (s *Server) addDefinitions(tags []string) {
	handle(s, huma.Operation{
		OperationID: "findImage", Method: http.MethodPost, Path: "/v1/images/find", Tags: tags, Summary: "Find the image of a definition",
		Description: "Without building it: if it is not there, that is the error image_not_found.",
	}, func(ctx context.Context, who principal, in *bodyOf[innerdock.ImageDefinition]) (*bodyOf[innerdock.Image], error) {
		image, err := s.images.Find(ctx, who.Tenant, in.Body)
		return &bodyOf[innerdock.Image]{image}, err
	})
	handle(s, huma.Operation{
		OperationID: "renderImage", Method: http.MethodPost, Path: "/v1/images/dockerfile", Tags: tags, Summary: "Show a definition as a Dockerfile",
	}, func(_ context.Context, _ principal, in *bodyOf[innerdock.ImageDefinition]) (*bodyOf[dockerfile], error) {
		text, err := s.images.Dockerfile(in.Body)
		return &bodyOf[dockerfile]{dockerfile{text}}, err
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
	handle(s, op, func(ctx context.Context, who principal, in *bodyOf[innerdock.ImageDefinition]) (*streamed, error) {
		return s.stream(ctx, func(emit emitter) (string, innerdock.BuildEvent, error) {
			image, err := s.images.BuildFrom(ctx, who.Tenant, in.Body, nil, emit)
			return "image", innerdock.BuildEvent{Image: &image}, err
		})
	})
}
