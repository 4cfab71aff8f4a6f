package image

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image/debian"
	"github.com/innerdock/innerdock/pkg/image/unpack"
)

// Config says where a store is and what it works with.
type Config struct {
	Dir            string            // made if need be; several servers may share it
	DebianCache    string            // where bases made from Debian's packages are kept, across stores; default Dir/debian
	Runner         Runner            // runs steps; nil: definitions with steps are refused
	Builder        Builder           // builds Dockerfiles; nil: they are refused
	Log            *slog.Logger      // nil: silent
	CertificateDir string            // authorities that Debian bases shall trust; default /usr/local/share/ca-certificates
	Limits         unpack.Limits     // of one image; zero: unpack.DefaultLimits
	ProbeTimeout   time.Duration     // how long a registry has to answer at all; default 3 s
	StallTimeout   time.Duration     // how long a download may stand still before it is asked for again; default 1 min
	Transport      http.RoundTripper // to registries; nil: Go's default, without link-local addresses
	Keychain       authn.Keychain    // credentials for registries; nil: Docker's configuration of the server's user

	// Mirrors are asked before a registry, in their order. The keys are names of
	// registries such as index.docker.io.
	Mirrors map[string][]name.Registry
	// InUse says what needs an image, by the image's ID; nil: nothing does.
	InUse func(context.Context) (map[string]string, error)
	// Removed is told of each image that was removed; nil: nobody is.
	Removed func(id string)
}

// Store is a directory of images.
type Store struct {
	dir         string
	debianCache string
	runner      Runner
	builder     Builder
	log         *slog.Logger
	debian      debian.Provider
	limits      unpack.Limits
	probeTime   time.Duration
	stallTime   time.Duration
	transport   http.RoundTripper
	keychain    authn.Keychain
	mirrors     map[string][]name.Registry
	inUse       func(context.Context) (map[string]string, error)
	removed     func(id string)
}

// Open opens the store, and removes what builds that were killed left in it.
func Open(cfg Config) (*Store, error) {
	s := &Store{
		dir: cfg.Dir, debianCache: cfg.DebianCache, runner: cfg.Runner, builder: cfg.Builder, log: cfg.Log,
		debian: debian.Provider{CertificateDir: cfg.CertificateDir},
		limits: cfg.Limits, probeTime: cfg.ProbeTimeout, stallTime: cfg.StallTimeout, transport: cfg.Transport, keychain: cfg.Keychain,
		mirrors: cfg.Mirrors, inUse: cfg.InUse, removed: cfg.Removed,
	}
	s.setDefaults()
	for _, name := range []string{"blobs/sha256", "parts", "images", "refs", "tmp", "locks"} {
		if err := os.MkdirAll(filepath.Join(s.dir, name), 0o700); err != nil {
			return nil, diskError(err, "making the image store")
		}
	}
	if err := os.MkdirAll(s.debianCache, 0o700); err != nil {
		return nil, diskError(err, "making the image store")
	}
	swept, err := s.sweepTmp()
	if err != nil {
		return nil, err
	}
	if swept > 0 {
		s.log.Info("removed what killed image builds had left", "count", swept)
	}
	return s, nil
}

func (s *Store) setDefaults() {
	if s.debianCache == "" {
		s.debianCache = filepath.Join(s.dir, "debian")
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.debian.CertificateDir == "" {
		s.debian.CertificateDir = "/usr/local/share/ca-certificates"
	}
	if s.limits == (unpack.Limits{}) {
		s.limits = unpack.DefaultLimits()
	}
	if s.probeTime == 0 {
		s.probeTime = 3 * time.Second
	}
	if s.stallTime == 0 {
		s.stallTime = time.Minute
	}
	if s.transport == nil {
		s.transport = newTransport()
	}
	if s.keychain == nil {
		s.keychain = authn.DefaultKeychain
	}
	if s.inUse == nil {
		s.inUse = func(context.Context) (map[string]string, error) { return nil, nil }
	}
	if s.removed == nil {
		s.removed = func(string) {}
	}
}

// record is an image as image.json describes it.
type record struct {
	Image    innerdock.Image `json:"image"`
	Layers   []layer         `json:"layers"`             // bottom first
	Config   string          `json:"config,omitempty"`   // the blobs of its configuration
	Manifest string          `json:"manifest,omitempty"` // and of its manifest
}

var imageID = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// imageDir is the directory of the image with a valid ID.
func (s *Store) imageDir(id string) string {
	return filepath.Join(s.dir, "images", strings.TrimPrefix(id, "sha256:"))
}

// Root returns the path of the image's EROFS file. The file is there if Get
// finds the image, and never changes. The path of an ID that is none is "".
func (s *Store) Root(id string) string {
	if !imageID.MatchString(id) {
		return ""
	}
	return filepath.Join(s.imageDir(id), "root.erofs")
}

// Get returns the image with an ID, which counts as a use of it. If there is
// none the error's code is CodeImageNotFound.
func (s *Store) Get(_ context.Context, id string) (innerdock.Image, error) {
	r, err := s.record(id)
	if err == nil {
		s.touch(id)
	}
	return r.Image, err
}

func (s *Store) record(id string) (record, error) {
	if !imageID.MatchString(id) {
		return record{}, notFound(id)
	}
	path := filepath.Join(s.imageDir(id), "image.json")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, notFound(id)
	}
	if err != nil {
		return record{}, innerdock.Internal(err, "reading an image")
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return record{}, innerdock.Internal(err, "reading an image")
	}
	r.Image.UsedAt = r.Image.CreatedAt
	if info, err := os.Stat(path); err == nil {
		r.Image.UsedAt = info.ModTime().UTC()
	}
	return r, nil
}

func notFound(id string) error {
	return innerdock.Errorf(innerdock.CodeImageNotFound, "there is no image %q; build it first", clip(id))
}

// List returns all images, the latest first.
func (s *Store) List(ctx context.Context) ([]innerdock.Image, error) {
	records, err := s.records(ctx)
	if err != nil {
		return nil, err
	}
	images := make([]innerdock.Image, len(records))
	for i, r := range records {
		images[i] = r.Image
	}
	slices.SortStableFunc(images, func(a, b innerdock.Image) int { return b.CreatedAt.Compare(a.CreatedAt) })
	return images, nil
}

func (s *Store) records(ctx context.Context) ([]record, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "images"))
	if err != nil {
		return nil, innerdock.Internal(err, "listing images")
	}
	var all []record
	for _, e := range entries {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		r, err := s.record("sha256:" + e.Name())
		if innerdock.CodeOf(err) == innerdock.CodeImageNotFound {
			continue // removed meanwhile, or not ours
		}
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// Remove deletes an image that nothing needs, and the blobs that no other image
// needs. If there is no such image the error's code is CodeImageNotFound.
func (s *Store) Remove(ctx context.Context, id string) error {
	if !imageID.MatchString(id) {
		return notFound(id)
	}
	used, err := s.inUse(ctx)
	if err != nil {
		return err
	}
	if user := used[id]; user != "" {
		return innerdock.Errorf(innerdock.CodeConflict, "%s needs the image %s; terminate a sandbox, or remove a pool or snapshot, before its image", user, id)
	}
	if err := s.take(id); err != nil {
		return err
	}
	return s.sweepBlobs(ctx)
}

const lockExclusiveNow = syscall.LOCK_EX | syscall.LOCK_NB
