package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/innerdock/innerdock"
)

type keyList struct {
	Keys []innerdock.KeyInfo `json:"keys" nullable:"false"`
}

func (s *Server) addKeys() {
	tags := []string{"keys"}
	handle(s, huma.Operation{
		OperationID: "createKey", Method: http.MethodPost, Path: "/v1/keys", Tags: tags,
		Summary: "Create an API key", DefaultStatus: http.StatusCreated,
		Description: "The key itself is in this answer and never again.",
	}, func(ctx context.Context, who principal, in *bodyOf[innerdock.KeySpec]) (*bodyOf[innerdock.NewKey], error) {
		if err := who.needAdmin(); err != nil {
			return nil, err
		}
		if in.Body.Tenant == "" {
			in.Body.Tenant = innerdock.DefaultTenant
		}
		key, info, err := s.keys.CreateKey(ctx, in.Body.Name, in.Body.Tenant)
		return &bodyOf[innerdock.NewKey]{innerdock.NewKey{Key: key, KeyInfo: info}}, err
	})
	handle(s, huma.Operation{
		OperationID: "listKeys", Method: http.MethodGet, Path: "/v1/keys", Tags: tags, Summary: "List API keys",
	}, func(ctx context.Context, who principal, _ *nothing) (*bodyOf[keyList], error) {
		if err := who.needAdmin(); err != nil {
			return nil, err
		}
		keys, err := s.keys.Keys(ctx)
		if keys == nil {
			keys = []innerdock.KeyInfo{}
		}
		return &bodyOf[keyList]{keyList{keys}}, err
	})
	handle(s, huma.Operation{
		OperationID: "revokeKey", Method: http.MethodDelete, Path: "/v1/keys/{id}", Tags: tags, Summary: "Revoke an API key",
		DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, who principal, in *struct {
		ID string `path:"id"`
	}) (*nothing, error) {
		if err := who.needAdmin(); err != nil {
			return nil, err
		}
		return nil, s.keys.RevokeKey(ctx, in.ID)
	})
}
