package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/innerdock/innerdock"
)

// Templates are what sandboxes are restored from instead of being started.
type Templates interface {
	CreateTemplate(ctx context.Context, spec innerdock.TemplateSpec) (innerdock.Template, error)
	Templates() []innerdock.Template
	DeleteTemplate(ctx context.Context, id string) error
}

type templateList struct {
	Templates []innerdock.Template `json:"templates" nullable:"false"`
}

func (s *Server) addTemplates() {
	tags := []string{"templates"}
	handle(s, huma.Operation{
		OperationID: "createTemplate", Method: http.MethodPost, Path: "/v1/templates", Tags: tags,
		Summary: "Make a template now",
		Description: "For administrators. The answer comes when sandboxes with the same image, disk and Docker, and memory of the same power of two, " +
			"start from the template. The server makes templates by itself too, after the first sandbox of a kind.",
	}, func(ctx context.Context, who principal, in *bodyOf[innerdock.TemplateSpec]) (*bodyOf[innerdock.Template], error) {
		if err := who.needAdmin(); err != nil {
			return nil, err
		}
		template, err := s.templates.CreateTemplate(ctx, in.Body)
		return &bodyOf[innerdock.Template]{template}, err
	})
	handle(s, huma.Operation{
		OperationID: "listTemplates", Method: http.MethodGet, Path: "/v1/templates", Tags: tags, Summary: "List templates",
		Description: "For administrators.",
	}, func(_ context.Context, who principal, _ *nothing) (*bodyOf[templateList], error) {
		if err := who.needAdmin(); err != nil {
			return nil, err
		}
		return &bodyOf[templateList]{templateList{s.templates.Templates()}}, nil
	})
	handle(s, huma.Operation{
		OperationID: "deleteTemplate", Method: http.MethodDelete, Path: "/v1/templates/{id}", Tags: tags,
		Summary: "Remove a template", DefaultStatus: http.StatusNoContent,
		Description: "For administrators. Sandboxes that were restored from it live on; the next of its kind is started cold and has it made again.",
	}, func(ctx context.Context, who principal, in *struct {
		ID string `path:"id"`
	}) (*nothing, error) {
		if err := who.needAdmin(); err != nil {
			return nil, err
		}
		return nil, s.templates.DeleteTemplate(ctx, in.ID)
	})
}
