// Package registry is a pull-through cache of Docker Hub for the Docker daemons
// in sandboxes, which use it as their registry mirror: the read half of the
// registry protocol, version 2, for images that the public, or the operator's
// account, may read.
//
// Content named by digest is served from the local store, and downloaded once
// if it is not there. Tags are asked for upstream each time; the local store
// answers when upstream cannot, so that pulled and seeded images work offline.
// A sandbox's credentials are never read. A digest is served in those
// repositories only in which upstream has shown it (public.go).
//
// The store is an OCI image layout. It keeps to a size and an age: what was not
// used for longest goes first, and seeded images never. What it has no room for
// is passed through. Stored content is checked against its digest again before it
// is served; what is wrong is fetched anew.
//
// What the cache cannot give it answers with 404: the daemon then asks Docker
// Hub itself, and its user reads Docker Hub's own answer.
package registry

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/singleflight"

	"github.com/innerdock/innerdock"
)

// DockerHub is the registry that is cached unless Config says otherwise.
const DockerHub = "https://registry-1.docker.io"

// What the store keeps unless Config says otherwise.
const (
	DefaultMaxBytes = 20 << 30
	DefaultMaxAge   = 30 * 24 * time.Hour
)

// Config says where a Cache keeps content and where it gets it.
type Config struct {
	Dir string // the store, made if it is not there; one Cache at a time

	// Upstreams are asked in turn, https://host or http://host each: mirrors, and
	// at last the registry whose word counts. Default DockerHub.
	Upstreams   []string
	Credentials authn.Keychain // accounts there; default: none

	MaxBytes int64         // of the store, seeded images not counted; default DefaultMaxBytes
	MaxAge   time.Duration // of what nobody uses; default DefaultMaxAge
	Log      *slog.Logger  // default: none
}

// Offers has images of Docker Hub for when upstream has no answer.
type Offers interface {
	// Offer returns the image that a name with a tag, such as
	// docker.io/library/python:3.11, stands for, to be read until release is called.
	Offer(ctx context.Context, ref string) (img v1.Image, release func(), err error)
}

func (cfg Config) withDefaults() Config {
	if len(cfg.Upstreams) == 0 {
		cfg.Upstreams = []string{DockerHub}
	}
	if cfg.Credentials == nil {
		cfg.Credentials = credentials{}
	}
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	if cfg.MaxAge <= 0 {
		cfg.MaxAge = DefaultMaxAge
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return cfg
}

// Cache answers the read requests of the registry protocol.
type Cache struct {
	store    *store
	upstream chain
	maxAge   time.Duration
	log      *slog.Logger

	offers atomic.Pointer[Offers]

	manifests singleflight.Group
	checks    singleflight.Group // of whether upstream shows a digest
	downloads downloads
	seeding   sync.Mutex // one Seed at a time

	publicMu sync.Mutex
	public   map[string]time.Time // when upstream last showed something in a repository

	complained atomic.Int64 // when complain last spoke, in seconds
	served     atomic.Int64 // blobs
	downloaded atomic.Int64 // of them, from upstream

	ctx    context.Context // ends with Close: everything asked upstream depends on it
	cancel context.CancelFunc
	work   tasks
}

// Open opens the store in cfg.Dir and removes what an earlier, killed process
// left half done. Errors: CodeInvalid for a wrong upstream, CodeConflict if
// another process has the store open.
func Open(cfg Config) (*Cache, error) {
	cfg = cfg.withDefaults()
	var all chain
	for _, address := range cfg.Upstreams {
		up, err := newUpstream(address, cfg.Credentials)
		if err != nil {
			return nil, innerdock.Errorf(innerdock.CodeInvalid, "the registry %q cannot be used: %w", address, err)
		}
		all = append(all, up)
	}
	st, err := openStore(cfg.Dir, cfg.MaxBytes)
	if err != nil {
		return nil, err
	}
	c := &Cache{store: st, upstream: all, maxAge: cfg.MaxAge, log: cfg.Log, public: map[string]time.Time{}}
	c.ctx, c.cancel = context.WithCancel(context.Background()) //nolint:forbidigo // a Cache lives until Close
	c.downloads.init(c)
	c.work.begin()
	go func() {
		defer c.work.group.Done()
		c.expire()
	}()
	return c, nil
}

// UseOffers gives the cache what it may seed itself with. It is apart from Open
// because it may need sandboxes, which need the cache first.
func (c *Cache) UseOffers(offers Offers) { c.offers.Store(&offers) }

// expireEvery is how often what is too old is looked for.
const expireEvery = time.Hour

// expire removes what was not used for too long, now and from time to time.
func (c *Cache) expire() {
	for {
		if blobs, bytes := c.store.prune(time.Now().Add(-c.maxAge)); blobs > 0 {
			c.log.Info("image cache: removed what was not used for long", "blobs", blobs, "bytes", bytes)
		}
		if err := c.store.sweep(); err != nil {
			c.complain("old tags were not removed", "error", err)
		}
		if !pause(c.ctx, expireEvery) {
			return
		}
	}
}

// complain logs a fault of the host for its operator, once a minute: sandboxes
// must not fill the log.
func (c *Cache) complain(message string, args ...any) {
	now, last := time.Now().Unix(), c.complained.Load()
	if now-last >= 60 && c.complained.CompareAndSwap(last, now) {
		c.log.Warn("image cache: "+message, args...)
	}
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
