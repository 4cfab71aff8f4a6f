package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime/multipart"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/innerdock/innerdock"
)

// The parts of a build's request, in their order.
const (
	definitionPart = "definition"
	contextPart    = "context"
)

// addBuildFrom adds the build of an image from files that come with the request,
// and the end of the builder that it leaves.
func (s *Server) addBuildFrom(tags []string) {
	op := huma.Operation{
		OperationID: "buildImageFrom", Method: http.MethodPost, Path: "/v1/images/build", Tags: tags, Summary: "Build an image from files",
		Description: "A form of two parts in this order: definition, and context, a tar archive, not compressed and of 4 GiB at most, " +
			"of the files that copy steps and a Dockerfile take. What a .dockerignore in it names is left out. " +
			"The answer is that of buildImage. findImage with the archive's digest as context may spare its way.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"multipart/form-data": {
			Schema: &huma.Schema{Type: huma.TypeObject, Required: []string{definitionPart, contextPart}, Properties: map[string]*huma.Schema{
				definitionPart: s.refTo(innerdock.ImageDefinition{}), contextPart: {Type: huma.TypeString, Format: "binary"}}}}}},
		Responses: map[string]*huma.Response{"200": s.eventStream("BuildEvent", s.refTo(innerdock.BuildEvent{}), "progress", "log", "image", "error")},
	}
	s.handleRaw(op, func(w http.ResponseWriter, r *http.Request) { s.buildFrom(&op, w, r) })
	handle(s, huma.Operation{
		OperationID: "endBuilder", Method: http.MethodDelete, Path: "/v1/builder", Tags: tags, Summary: "End the builder",
		Description: "Of the caller's tenant, with its cache, and what pip has kept for its images. Builds that run in it fail; the next build starts another.", DefaultStatus: http.StatusNoContent,
	}, func(_ context.Context, who principal, _ *nothing) (*nothing, error) {
		return nil, s.builders.EndBuilder(who.Tenant)
	})
}

func (s *Server) buildFrom(op *huma.Operation, w http.ResponseWriter, r *http.Request) {
	def, files, err := buildParts(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	// Heartbeats may go out while the files are still coming in.
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil && r.ProtoMajor == 1 {
		s.fail(w, r, innerdock.Internal(err, "reading a build's files"))
		return
	}
	answer, err := s.stream(r.Context(), func(emit emitter) (string, innerdock.BuildEvent, error) {
		image, err := s.images.BuildFrom(r.Context(), principalOf(r.Context()).Tenant, def, files, emit)
		return "image", innerdock.BuildEvent{Image: &image}, err
	})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	answer.Body(humago.NewContext(op, r, w))
}

// buildParts reads the definition, and leaves the files to be read.
func buildParts(r *http.Request) (def innerdock.ImageDefinition, files io.Reader, err error) {
	form, err := r.MultipartReader()
	if err != nil {
		return def, nil, innerdock.Errorf(innerdock.CodeInvalid, "the body is no multipart/form-data (%v)", err)
	}
	part, err := nextPart(form, definitionPart)
	if err != nil {
		return def, nil, err
	}
	decoder := json.NewDecoder(http.MaxBytesReader(nil, part, maxJSON))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&def); err != nil {
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			return def, nil, tooLargeError(maxJSON)
		}
		return def, nil, innerdock.Errorf(innerdock.CodeInvalid, "the part definition cannot be read (%v)", err)
	}
	files, err = nextPart(form, contextPart)
	return def, files, err
}

func nextPart(form *multipart.Reader, name string) (*multipart.Part, error) {
	part, err := form.NextRawPart()
	if err != nil {
		return nil, innerdock.Errorf(innerdock.CodeInvalid, "the form lacks the part %s (%v)", name, err)
	}
	if part.FormName() != name {
		return nil, innerdock.Errorf(innerdock.CodeInvalid, "the form has the part %q where %s belongs", part.FormName(), name)
	}
	return part, nil
}
