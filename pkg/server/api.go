package server

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/innerdock/innerdock"
)

const apiVersion = "v1"

const description = `innerdock runs untrusted code in gVisor sandboxes that have a real Docker inside.

Over the server's Unix socket no key is needed; over TCP send ` + "`Authorization: Bearer KEY`" + `.
Every error is an Error: switch on its code, show its message. The status follows the code.
Every reply names its request in the header ` + "`Innerdock-Request-Id`" + `, as the server's log does. A request
that has such a header (1 to 64 of ` + "`A-Z a-z 0-9 . _ -`" + `) keeps its name, and sandboxes say in
` + "`request_id`" + ` which one made them: who gave up waiting, and may have missed the reply, finds and ends them by it.
Long polls answer after 60 seconds at the most; output streams are resumed by offset.`

// newAPI makes an empty API whose operations are served by mux.
func newAPI(mux *http.ServeMux) huma.API {
	useFailures()
	return humago.New(mux, huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info:    &huma.Info{Title: "innerdock", Version: apiVersion, Description: description},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"key": {Type: "http", Scheme: "bearer", Description: "An API key; TCP only."},
				},
			},
			Security: []map[string][]string{{"key": {}}},
			Tags: []*huma.Tag{
				{Name: "sandboxes", Description: "Sandboxes and their Docker."},
				{Name: "snapshots", Description: "Sandboxes that were kept as they ran, and copies of them."},
				{Name: "processes", Description: "Processes in a sandbox."},
				{Name: "files", Description: "Files in a sandbox. Relative paths are under " + innerdock.WorkspaceDir + "."},
				{Name: "tunnels", Description: "Connections into a sandbox: Docker's API and TCP ports."},
				{Name: "images", Description: "What sandboxes are made from."},
				{Name: "keys", Description: "API keys; through the local socket only."},
				{Name: "server", Description: "The server itself."},
			},
		},
		Formats:                      huma.DefaultFormats,
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
	})
}

// handle adds an operation whose input and output huma reads from the types.
func handle[I, O any](s *Server, op huma.Operation, f func(context.Context, principal, *I) (*O, error)) {
	op.MaxBodyBytes = maxJSON
	op.BodyReadTimeout = -1 // pacedBody has deadlines of its own
	huma.Register(s.api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := f(ctx, principalOf(ctx), in)
		if err != nil {
			return nil, &failure{s.errorFor(ctx, err)}
		}
		return out, nil
	})
}

// handleRaw adds an operation that reads and writes HTTP by itself, and
// documents it: with the errors of every other operation.
func (s *Server) handleRaw(op huma.Operation, h http.HandlerFunc) {
	op.Responses["default"] = &huma.Response{
		Description: "Error",
		Content:     map[string]*huma.MediaType{"application/json": {Schema: (&failure{}).Schema(s.schemas())}},
	}
	s.api.OpenAPI().AddOperation(&op)
	s.mux.HandleFunc(op.Method+" "+op.Path, h)
}

func (s *Server) schemas() huma.Registry { return s.api.OpenAPI().Components.Schemas }

// addDocument serves the API's own description.
func (s *Server) addDocument() {
	s.openReplies()
	serve := func(path, contentType string, encode func() ([]byte, error)) {
		s.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			document, err := encode()
			if err != nil {
				s.fail(w, r, innerdock.Internal(err, "describing the API"))
				return
			}
			w.Header().Set("Content-Type", contentType)
			_, _ = w.Write(document)
		})
	}
	serve("/openapi.json", "application/openapi+json", s.api.OpenAPI().MarshalJSON)
	serve("/openapi.yaml", "application/openapi+yaml", s.api.OpenAPI().YAML)
}

// Document is the API's OpenAPI 3.1 description as YAML.
func Document() ([]byte, error) {
	document, err := New(Config{}).api.OpenAPI().YAML()
	if err != nil {
		return nil, innerdock.Internal(err, "describing the API")
	}
	header := "# Generated from the Go types by `innerdock openapi`; do not edit.\n"
	return []byte(header + strings.TrimRight(string(document), "\n") + "\n"), nil
}

// Inputs and outputs that several operations share.
type (
	nothing struct{}
	byID    struct {
		ID string `path:"id" doc:"ID, or the name of a live one."`
	}
	bodyOf[T any] struct{ Body T }
)

func (s *Server) addMeta() {
	s.handleRaw(huma.Operation{
		OperationID: "health", Method: http.MethodGet, Path: "/healthz", Tags: []string{"server"},
		Summary: "Say ok", Security: []map[string][]string{{}},
		Responses: map[string]*huma.Response{"200": textResponse("text/plain", "ok")},
	}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("ok"))
	})
	handle(s, huma.Operation{
		OperationID: "getVersion", Method: http.MethodGet, Path: "/v1/version", Tags: []string{"server"},
		Summary: "Get the server's versions",
	}, func(context.Context, principal, *nothing) (*bodyOf[innerdock.VersionInfo], error) {
		return &bodyOf[innerdock.VersionInfo]{s.version}, nil
	})
}

func textResponse(contentType, description string) *huma.Response {
	return &huma.Response{
		Description: description,
		Content:     map[string]*huma.MediaType{contentType: {Schema: &huma.Schema{Type: huma.TypeString}}},
	}
}
