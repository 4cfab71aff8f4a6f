package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/innerdock/innerdock"
)

// Pools are sandboxes that wait for who asks for one.
type Pools interface {
	CreatePool(ctx context.Context, spec innerdock.PoolSpec) (innerdock.Pool, error)
	Pools() []innerdock.Pool
	DeletePool(ctx context.Context, id string) error
}

type poolList struct {
	Pools []innerdock.Pool `json:"pools" nullable:"false"`
}

func (s *Server) addPools() {
	tags := []string{"pools"}
	handle(s, huma.Operation{
		OperationID: "createPool", Method: http.MethodPost, Path: "/v1/pools", Tags: tags,
		Summary: "Keep sandboxes ready", DefaultStatus: http.StatusCreated,
		Description: "For administrators. Whoever then creates a sandbox with the same image, memory, disk and Docker gets one of them; its name, environment, CPU and network are as asked for.",
	}, func(ctx context.Context, who principal, in *bodyOf[innerdock.PoolSpec]) (*bodyOf[innerdock.Pool], error) {
		if err := who.needAdmin(); err != nil {
			return nil, err
		}
		pool, err := s.pools.CreatePool(ctx, in.Body)
		return &bodyOf[innerdock.Pool]{pool}, err
	})
	handle(s, huma.Operation{
		OperationID: "listPools", Method: http.MethodGet, Path: "/v1/pools", Tags: tags, Summary: "List pools",
		Description: "For administrators.",
	}, func(_ context.Context, who principal, _ *nothing) (*bodyOf[poolList], error) {
		if err := who.needAdmin(); err != nil {
			return nil, err
		}
		return &bodyOf[poolList]{poolList{s.pools.Pools()}}, nil
	})
	handle(s, huma.Operation{
		OperationID: "deletePool", Method: http.MethodDelete, Path: "/v1/pools/{id}", Tags: tags,
		Summary: "End a pool and what waits in it", DefaultStatus: http.StatusNoContent,
		Description: "For administrators. Sandboxes that were taken from it live on.",
	}, func(ctx context.Context, who principal, in *struct {
		ID string `path:"id"`
	}) (*nothing, error) {
		if err := who.needAdmin(); err != nil {
			return nil, err
		}
		return nil, s.pools.DeletePool(ctx, in.ID)
	})
}
