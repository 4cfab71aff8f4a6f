// Package server is innerdock's HTTP API: it authenticates, validates, translates
// between HTTP and a Backend, and passes what concerns the inside of a sandbox
// on to the sandbox's agent. Its OpenAPI document is made from the same Go types
// that it serves. What a sandbox is, and how one is made, is the Backend's.
package server

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"github.com/innerdock/innerdock"
)

// Backend has sandboxes. A sandbox of another tenant is not there: CodeNotFound.
type Backend interface {
	Create(ctx context.Context, tenant string, spec innerdock.SandboxSpec) (innerdock.Sandbox, error)
	Sandbox(ctx context.Context, tenant, idOrName string) (innerdock.Sandbox, error)
	// Sandboxes lists the live ones, or with all those that have ended too.
	Sandboxes(ctx context.Context, tenant string, all bool) ([]innerdock.Sandbox, error)
	// Terminate ends a sandbox; one that has ended already is returned as it is.
	Terminate(ctx context.Context, tenant, idOrName string) (innerdock.Sandbox, error)
	// Wait returns when the sandbox has ended or ctx is done: its state by then, and no error.
	Wait(ctx context.Context, tenant, idOrName string) (innerdock.Sandbox, error)
	// WaitDocker returns when Docker is ready, failed or disabled, or ctx is done.
	WaitDocker(ctx context.Context, tenant, idOrName string) (innerdock.DockerStatus, error)
	// Log is the server's own record of the sandbox's life, as text.
	Log(ctx context.Context, tenant, idOrName string) ([]byte, error)
	// DialAgent opens one HTTP/1.1 connection to the sandbox's agent.
	DialAgent(ctx context.Context, tenant, idOrName string) (net.Conn, error)
}

// Images has images; they belong to the server, not to a tenant.
type Images interface {
	// Build makes an image or finds it, and reports events named progress and log.
	Build(ctx context.Context, def innerdock.ImageDefinition, progress func(event string, e innerdock.BuildEvent)) (innerdock.Image, error)
	Get(ctx context.Context, id string) (innerdock.Image, error)
	List(ctx context.Context) ([]innerdock.Image, error)
	Remove(ctx context.Context, id string) error
}

// Keys has API keys; Tenant says whose a key is, or CodeUnauthorized.
type Keys interface {
	Tenant(ctx context.Context, key string) (string, error)
	CreateKey(ctx context.Context, name, tenant string) (key string, info innerdock.KeyInfo, err error)
	Keys(ctx context.Context) ([]innerdock.KeyInfo, error)
	RevokeKey(ctx context.Context, id string) error
}

// Config is what a Server serves.
type Config struct {
	Backend Backend
	Images  Images
	Keys    Keys
	Seeds   Seeds
	Version string   // of this build
	Runsc   string   // version of the runtime
	Hosts   []string // host names that TCP clients may use besides localhost, IP addresses and the certificate's
	Log     *slog.Logger
}

// Server is the API. Local and Remote are its two faces.
type Server struct {
	backend  Backend
	images   Images
	keys     Keys
	seeds    Seeds
	version  innerdock.VersionInfo
	hosts    []string
	log      *slog.Logger
	mux      *http.ServeMux
	api      huma.API
	draining chan struct{}
	drain    func() // closes draining, once
}

// New makes a server that does not listen yet.
func New(cfg Config) *Server {
	s := &Server{
		backend:  cfg.Backend,
		images:   cfg.Images,
		keys:     cfg.Keys,
		seeds:    cfg.Seeds,
		version:  innerdock.VersionInfo{Version: cfg.Version, Runsc: cfg.Runsc, API: apiVersion},
		hosts:    cfg.Hosts,
		log:      cfg.Log,
		mux:      http.NewServeMux(),
		draining: make(chan struct{}),
	}
	s.drain = sync.OnceFunc(func() { close(s.draining) })
	s.api = newAPI(s.mux)
	s.addMeta()
	s.addImages()
	s.addSandboxes()
	s.addProxied()
	s.addKeys()
	s.addRegistry()
	s.addDocument()
	return s
}

// Local is for the Unix socket: whoever may open it is the administrator.
func (s *Server) Local() http.Handler {
	return s.outermost(s.authenticate(func(context.Context, *http.Request) (principal, error) {
		return principal{Tenant: innerdock.DefaultTenant, Admin: true}, nil
	}))
}

// Remote is for TCP: every request under /v1 needs a key, and one that a
// browser was tricked into sending is refused. known says which host names,
// besides addresses and localhost, are this server's.
func (s *Server) Remote(known func(host string) bool) http.Handler {
	origins := http.NewCrossOriginProtection()
	origins.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, innerdock.Errorf(innerdock.CodeForbidden, "requests from another site's pages are refused"))
	}))
	return s.outermost(s.checkHost(known, origins.Handler(s.authenticate(s.byKey))))
}

// untilDrain is ctx for a request that would rather answer early than hold up
// a server that is stopping. The returned function releases it.
func (s *Server) untilDrain(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-s.draining:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(); <-watched }
}
