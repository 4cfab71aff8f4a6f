// Package server is innerdock's HTTP API: it authenticates, validates, translates
// between HTTP and a Backend, and passes what concerns the inside of a sandbox
// on to the sandbox's agent. Its OpenAPI document is made from the same Go types
// that it serves. What a sandbox is, and how one is made, is the Backend's.
package server

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

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
	Terminate(ctx context.Context, tenant, idOrName string, grace time.Duration) (innerdock.Sandbox, error)
	// Pause has it stand still until Resume, with persist without any memory; both
	// may be said twice.
	Pause(ctx context.Context, tenant, idOrName string, persist bool) (innerdock.Sandbox, error)
	Resume(ctx context.Context, tenant, idOrName string) (innerdock.Sandbox, error)
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
	// BuildFrom makes an image for a tenant or finds it, and reports events named
	// progress and log. files is a tar archive of what the definition copies; nil: nothing.
	BuildFrom(ctx context.Context, tenant string, def innerdock.ImageDefinition, files io.Reader, progress func(event string, e innerdock.BuildEvent)) (innerdock.Image, error)
	// Find returns the image of a definition if it is there, and asks nobody for it.
	Find(ctx context.Context, tenant string, def innerdock.ImageDefinition) (innerdock.Image, error)
	// Dockerfile returns the one that a definition is.
	Dockerfile(def innerdock.ImageDefinition) (string, error)
	Get(ctx context.Context, id string) (innerdock.Image, error)
	List(ctx context.Context) ([]innerdock.Image, error)
	Remove(ctx context.Context, id string) error
	// History says how an image came to be, the last step first.
	History(ctx context.Context, id string) ([]innerdock.ImageLayer, error)
	Prune(ctx context.Context, what innerdock.ImagePrune) (innerdock.ImagesPruned, error)
	// Push and Import report events as BuildFrom does.
	Push(ctx context.Context, id string, to innerdock.ImagePush, progress func(event string, e innerdock.BuildEvent)) (innerdock.Image, error)
	Import(ctx context.Context, archive io.Reader, progress func(event string, e innerdock.BuildEvent)) (innerdock.Image, error)
	// Export calls begin before the first byte.
	Export(ctx context.Context, id string, begin func(), archive io.Writer) error
}

// Builders are where images are built; each tenant has its own.
type Builders interface {
	// EndBuilder ends a tenant's builder with its cache, if there is one.
	EndBuilder(tenant string) error
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
	Backend   Backend
	Images    Images
	Builders  Builders
	Keys      Keys
	Registry  Registry
	Pools     Pools
	Templates Templates
	Snapshots Snapshots
	Version   string   // of this build
	Runsc     string   // version of the runtime
	Hosts     []string // host names that TCP clients may use besides localhost, IP addresses and the certificate's
	Log       *slog.Logger
}

// Server is the API. Local and Remote are its two faces.
type Server struct {
	backend   Backend
	images    Images
	builders  Builders
	keys      Keys
	registry  Registry
	pools     Pools
	templates Templates
	snapshots Snapshots
	version   innerdock.VersionInfo
	hosts     []string
	log       *slog.Logger
	mux       *http.ServeMux
	api       huma.API
	draining  chan struct{}
	drain     func() // closes draining, once
	tunnels   tunnels
	sockets   *sockets // nil: none
}

// New makes a server that does not listen yet.
func New(cfg Config) *Server {
	s := &Server{
		backend:   cfg.Backend,
		images:    cfg.Images,
		builders:  cfg.Builders,
		keys:      cfg.Keys,
		registry:  cfg.Registry,
		pools:     cfg.Pools,
		templates: cfg.Templates,
		snapshots: cfg.Snapshots,
		version:   innerdock.VersionInfo{Version: cfg.Version, Runsc: cfg.Runsc, API: apiVersion},
		hosts:     cfg.Hosts,
		log:       cfg.Log,
		mux:       http.NewServeMux(),
		draining:  make(chan struct{}),
		tunnels:   tunnels{open: map[*counted]struct{}{}, of: map[string]int{}},
	}
	s.drain = sync.OnceFunc(func() { close(s.draining) })
	s.api = newAPI(s.mux)
	s.addMeta()
	s.addImages()
	s.addSandboxes()
	s.addProxied()
	s.addTunnels()
	s.addKeys()
	s.addRegistry()
	s.addPools()
	s.addTemplates()
	s.addSnapshots()
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
