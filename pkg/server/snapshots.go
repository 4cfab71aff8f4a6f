package server

import (
	"context"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/innerdock/innerdock"
)

// Snapshots are running sandboxes that were kept as they were; no tenant sees
// another's.
type Snapshots interface {
	Snapshot(ctx context.Context, tenant, idOrName string, spec innerdock.SnapshotSpec) (innerdock.Snapshot, error)
	Snapshots(ctx context.Context, tenant string) ([]innerdock.Snapshot, error)
	DeleteSnapshot(ctx context.Context, tenant, id string) error
	// ExportSnapshot calls begin before the first byte.
	ExportSnapshot(ctx context.Context, tenant, id string, withImage bool, begin func(), archive io.Writer) error
	// ImportSnapshot refuses what another server has exported unless trusted.
	ImportSnapshot(ctx context.Context, tenant string, trusted bool, archive io.Reader) (innerdock.Snapshot, error)
	// Commit makes an image of a running sandbox's files.
	Commit(ctx context.Context, tenant, idOrName string) (innerdock.Image, error)
	// Fork makes copies of a running sandbox, all or none.
	Fork(ctx context.Context, tenant, idOrName string, count int) ([]innerdock.Sandbox, error)
}

type snapshotList struct {
	Snapshots []innerdock.Snapshot `json:"snapshots" nullable:"false"`
}

func (s *Server) addSnapshots() {
	tags := []string{"snapshots"}
	handle(s, huma.Operation{
		OperationID: "createSnapshot", Method: http.MethodPost, Path: "/v1/sandboxes/{id}/snapshots", Tags: tags,
		Summary: "Keep a running sandbox as it is", DefaultStatus: http.StatusCreated,
		Description: "Its memory, processes, containers and files, which go on. POST /v1/sandboxes with the snapshot makes sandboxes from it.",
	}, func(ctx context.Context, who principal, in *struct {
		ID   string                  `path:"id" doc:"ID, or the name of a live one."`
		Body *innerdock.SnapshotSpec `required:"false"`
	}) (*bodyOf[innerdock.Snapshot], error) {
		var spec innerdock.SnapshotSpec
		if in.Body != nil {
			spec = *in.Body
		}
		snapshot, err := s.snapshots.Snapshot(ctx, who.Tenant, in.ID, spec)
		return &bodyOf[innerdock.Snapshot]{snapshot}, err
	})
	handle(s, huma.Operation{
		OperationID: "listSnapshots", Method: http.MethodGet, Path: "/v1/snapshots", Tags: tags, Summary: "List snapshots",
	}, func(ctx context.Context, who principal, _ *nothing) (*bodyOf[snapshotList], error) {
		snapshots, err := s.snapshots.Snapshots(ctx, who.Tenant)
		return &bodyOf[snapshotList]{snapshotList{snapshots}}, err
	})
	handle(s, huma.Operation{
		OperationID: "deleteSnapshot", Method: http.MethodDelete, Path: "/v1/snapshots/{id}", Tags: tags,
		Summary: "Remove a snapshot", DefaultStatus: http.StatusNoContent, Description: "Sandboxes that came of it live on.",
	}, func(ctx context.Context, who principal, in *struct {
		ID string `path:"id"`
	}) (*nothing, error) {
		return nil, s.snapshots.DeleteSnapshot(ctx, who.Tenant, in.ID)
	})
	s.addSnapshotTransfers(tags)
	handle(s, huma.Operation{
		OperationID: "commitSandbox", Method: http.MethodPost, Path: "/v1/sandboxes/{id}/image", Tags: tags,
		Summary: "Make an image of a running sandbox's files", DefaultStatus: http.StatusCreated,
		Description: "Its own image with what has changed below / since; not /tmp, and not Docker's data. Nothing is frozen meanwhile. " +
			"Whoever knows the image's ID can use it.",
	}, func(ctx context.Context, who principal, in *byID) (*bodyOf[innerdock.Image], error) {
		image, err := s.snapshots.Commit(ctx, who.Tenant, in.ID)
		return &bodyOf[innerdock.Image]{image}, err
	})
	handle(s, huma.Operation{
		OperationID: "forkSandbox", Method: http.MethodPost, Path: "/v1/sandboxes/{id}/fork", Tags: tags,
		Summary: "Copy a running sandbox", DefaultStatus: http.StatusCreated,
		Description: "Each copy goes on from the same moment, as a sandbox of its own without a name. All are made, or none.",
	}, s.fork)
}

// addSnapshotTransfers adds what moves snapshots between servers.
func (s *Server) addSnapshotTransfers(tags []string) {
	binary := map[string]*huma.MediaType{archiveType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}
	s.handleRaw(huma.Operation{
		OperationID: "exportSnapshot", Method: http.MethodGet, Path: "/v1/snapshots/{id}/archive", Tags: tags, Summary: "Export a snapshot",
		Description: "A tar archive for the import on a server with the same runsc. It holds the memory of the sandbox, secrets included.",
		Parameters: append(s.parameters(pathParameter{"id", huma.TypeString, "ID of a snapshot."}), &huma.Param{
			Name: "image", In: "query", Description: "Whether the image comes along. Default: true.", Schema: &huma.Schema{Type: huma.TypeBoolean}}),
		Responses: map[string]*huma.Response{"200": {Description: "The archive", Content: binary}},
	}, s.exportSnapshot)
	s.handleRaw(huma.Operation{
		OperationID: "importSnapshot", Method: http.MethodPost, Path: "/v1/snapshots/import", Tags: tags, Summary: "Import a snapshot",
		Description: "It belongs to the importer. The body is an archive of a snapshot: for the server's own tenant any, for others what this server, or one with the same snapshot.key, has exported.",
		RequestBody: &huma.RequestBody{Required: true, Content: binary},
		Responses: map[string]*huma.Response{"201": {Description: "The snapshot", Content: map[string]*huma.MediaType{
			"application/json": {Schema: s.refTo(innerdock.Snapshot{})}}}},
	}, s.importSnapshot)
}

func (s *Server) exportSnapshot(w http.ResponseWriter, r *http.Request) {
	withImage := r.URL.Query().Get("image") != "false"
	s.export(w, r, func(begin func()) error {
		return s.snapshots.ExportSnapshot(r.Context(), principalOf(r.Context()).Tenant, r.PathValue("id"), withImage, begin, w)
	})
}

func (s *Server) importSnapshot(w http.ResponseWriter, r *http.Request) {
	who := principalOf(r.Context())
	snapshot, err := s.snapshots.ImportSnapshot(r.Context(), who.Tenant, who.needOwner() == nil, r.Body)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusCreated, snapshot)
}

// fork terminates copies that nobody was told about.
func (s *Server) fork(ctx context.Context, who principal, in *struct {
	ID   string `path:"id" doc:"ID, or the name of a live one."`
	Body innerdock.ForkSpec
}) (*bodyOf[sandboxList], error) {
	copies, err := s.snapshots.Fork(ctx, who.Tenant, in.ID, in.Body.Count)
	if err != nil {
		return nil, err
	}
	for _, sandbox := range copies {
		if ctx.Err() != nil {
			if _, err := s.backend.Terminate(context.WithoutCancel(ctx), who.Tenant, sandbox.ID, innerdock.DefaultGrace); err != nil {
				return nil, err
			}
		} else if who.Tenant == innerdock.DefaultTenant {
			s.sockets.add(sandbox)
		}
	}
	return &bodyOf[sandboxList]{sandboxList{copies}}, ctx.Err()
}
