// Package registry is a pull-through cache of Docker Hub for the Docker daemons
// in sandboxes, which use it as their registry mirror: the read half of the
// registry protocol, version 2, for public images.
//
// Content named by digest is served from the local store, and downloaded once
// if it is not there. Tags are asked for upstream each time; the local store
// answers when upstream cannot, so that pulled and seeded images work offline.
// The store is an OCI image layout. It keeps to a size: what was not used for
// longest goes first, and seeded images never.
//
// What the cache cannot give it answers with 404: the daemon then asks Docker
// Hub itself, and its user reads Docker Hub's own answer.
package registry

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/innerdock/innerdock"
)

// DockerHub is the registry that is cached unless Config says otherwise.
const DockerHub = "https://registry-1.docker.io"

// DefaultMaxBytes is how much the store keeps unless Config says otherwise.
const DefaultMaxBytes = 20 << 30

// Config says where a Cache keeps content and where it gets it.
type Config struct {
	Dir      string       // the store, made if it is not there; one Cache at a time
	Upstream string       // https://host or http://host; default DockerHub
	MaxBytes int64        // of the store, seeded images not counted; default DefaultMaxBytes
	Log      *slog.Logger // default: none
}

// Cache answers the read requests of the registry protocol.
type Cache struct {
	store    *store
	upstream *upstream
	max      int64
	log      *slog.Logger

	manifests singleflight.Group
	downloads downloads
	seeding   sync.Mutex // one Seed at a time

	ctx    context.Context // ends with Close: everything asked upstream depends on it
	cancel context.CancelFunc
	work   tasks
}

// Open opens the store in cfg.Dir and removes what an earlier, killed process
// left half done. Errors: CodeInvalid for a wrong Upstream, CodeConflict if
// another process has the store open.
func Open(cfg Config) (*Cache, error) {
	if cfg.Upstream == "" {
		cfg.Upstream = DockerHub
	}
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	base, err := url.Parse(cfg.Upstream)
	if err != nil || base.Host == "" || (base.Scheme != "https" && base.Scheme != "http") {
		return nil, innerdock.Errorf(innerdock.CodeInvalid,
			"the registry %q is not of the form https://host", cfg.Upstream)
	}
	up, err := newUpstream(base)
	if err != nil {
		return nil, innerdock.Errorf(innerdock.CodeInvalid, "the registry %q cannot be used: %w", cfg.Upstream, err)
	}
	st, err := openStore(cfg.Dir, cfg.MaxBytes)
	if err != nil {
		return nil, err
	}
	c := &Cache{store: st, upstream: up, max: cfg.MaxBytes, log: cfg.Log}
	c.ctx, c.cancel = context.WithCancel(context.Background()) //nolint:forbidigo // a Cache lives until Close
	c.downloads.init(c)
	return c, nil
}

// Close ends downloads, waits for them and gives the store free. Requests that
// come later are answered from the store or not at all.
func (c *Cache) Close() error {
	c.cancel()
	c.work.finish()
	c.upstream.close()
	return c.store.close()
}

// tasks are the goroutines that Close waits for.
type tasks struct {
	mu     sync.Mutex
	closed bool
	group  sync.WaitGroup
}

// begin registers a task; false when it is too late. The task calls group.Done.
func (t *tasks) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.group.Add(1)
	}
	return !t.closed
}

func (t *tasks) finish() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.group.Wait()
}

// Limits of one request.
const (
	maxManifest       = 4 << 20
	revalidateTimeout = 4 * time.Second  // asking upstream about a tag that the store has too
	manifestTimeout   = 30 * time.Second // asking upstream for a manifest that the store has not
)

// ServeHTTP answers GET and HEAD below /v2/.
func (c *Cache) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, codeUnsupported,
			"this is a read-only cache of Docker Hub; push to a registry by its own name")
		return
	}
	if r.URL.Path == "/v2/" || r.URL.Path == "/v2" {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte("{}"))
		return
	}
	route, ok := parsePath(r.URL.Path)
	switch {
	case !ok:
		refuse(w, http.StatusNotFound, codeUnsupported, "this cache of Docker Hub serves manifests and blobs only")
	case route.blob:
		c.serveBlob(w, r, route)
	default:
		c.serveManifest(w, r, route)
	}
}
