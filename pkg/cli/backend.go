package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image"
	"github.com/innerdock/innerdock/pkg/network"
	"github.com/innerdock/innerdock/pkg/registry"
	"github.com/innerdock/innerdock/pkg/runtime"
	"github.com/innerdock/innerdock/pkg/store"
	"github.com/innerdock/innerdock/pkg/worker"
)

// registryPort is where sandboxes find the registry cache on the service address.
const registryPort = 5000

// closers are closed in the reverse order of their opening.
type closers []func() error

func (c *closers) add(fn func() error) { *c = append(*c, fn) }

func (c *closers) close() error {
	var err error
	for _, fn := range slices.Backward(*c) {
		err = errors.Join(err, fn())
	}
	return err
}

// openBackend opens what the server serves, in the order of need; parts.Close
// closes it in the reverse order and leaves the sandboxes running.
func openBackend(ctx context.Context, cfg serverConfig) (_ *parts, err error) {
	var open closers
	defer func() {
		if err != nil {
			err = errors.Join(err, open.close())
		}
	}()
	if os.Geteuid() != 0 {
		return nil, innerdock.Errorf(innerdock.CodeForbidden, "the server must be root, to make network namespaces and sandboxes; use sudo")
	}
	if err := worker.CheckData(cfg.Data); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return nil, innerdock.Internal(err, "making the data directory")
	}
	lock, err := worker.Lock(cfg.Data)
	if err != nil {
		return nil, err
	}
	open.add(lock.Close)
	rt, err := runtime.NewRunsc(ctx, runtime.RunscConfig{
		Path: cfg.Runsc, Root: filepath.Join(cfg.Data, "runsc"), Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	open.add(func() error { return rt.Close(context.WithoutCancel(ctx)) })
	if err := rt.Claim(ctx); err != nil {
		return nil, err
	}
	db, err := store.Open(ctx, filepath.Join(cfg.Data, "innerdock.db"))
	if err != nil {
		return nil, err
	}
	open.add(db.Close)
	build, err := rt.Build()
	if err != nil {
		return nil, err
	}
	prefix := worker.Prefix(cfg.Data)
	nw, err := network.Open(ctx, network.Config{
		Prefix: prefix, Pool: cfg.Pool, Allow: cfg.Allow, RegistryPort: registryPort, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	open.add(nw.Close)
	cfg.Registry.Log = cfg.Log
	cache, err := registry.Open(cfg.Registry)
	if err != nil {
		return nil, err
	}
	open.add(cache.Close)
	mirror := netip.AddrPortFrom(nw.ServiceAddr(), registryPort)
	stopMirror, err := serveMirror(ctx, mirror, cache, nw.SandboxOf)
	if err != nil {
		return nil, err
	}
	open.add(stopMirror)
	w, err := worker.Open(ctx, worker.Config{
		Data: cfg.Data, Prefix: prefix, Store: db, Runtime: rt, Network: nw,
		Mirror: "http://" + mirror.String(), Logger: cfg.Log, RuntimeBuild: build, TemplateRoom: cfg.Templates,
		BuildTime: cfg.Builds.time, BuilderIdle: cfg.Builds.idle, BuilderDisk: cfg.Builds.size, PipCache: cfg.Builds.pipSize, Policy: cfg.Snapshots, DeclaredPools: cfg.Pools})
	if err != nil {
		return nil, err
	}
	open.add(w.Close)
	images, err := image.Open(image.Config{
		Dir: cfg.Images, Runner: w, Builder: w, Log: cfg.Log, Keychain: cfg.Keychain, Mirrors: cfg.Mirrors, InUse: w.ImagesInUse, Removed: w.ImageRemoved})
	if err != nil {
		return nil, err
	}
	w.UseImages(images)
	cache.UseOffers(images)
	if cfg.Prune.UnusedFor > 0 || cfg.Prune.Keep > 0 {
		open.add(inBackground(ctx, func(ctx context.Context) { images.Collect(ctx, pruneEvery, cfg.Prune) }))
	}
	return &parts{
		Backend: w, Pools: w, Templates: w, Snapshots: w, Builders: w, Images: images, Keys: db, Runsc: rt.Version(), Close: open.close,
		Registry: registryCache{Cache: cache, dir: filepath.Join(cfg.Images, "seed")},
	}, nil
}

// pruneEvery is how often images that nobody uses are looked for.
const pruneEvery = time.Hour

// inBackground does work until it is stopped.
func inBackground(ctx context.Context, work func(context.Context)) (stop func() error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		work(ctx)
	}()
	return func() error {
		cancel()
		<-done
		return nil
	}
}

// serveMirror serves the registry cache to the sandboxes.
func serveMirror(ctx context.Context, at netip.AddrPort, cache *registry.Cache, who func(netip.Addr) (string, bool)) (stop func() error, err error) {
	listener, err := net.Listen("tcp", at.String())
	if err != nil {
		return nil, innerdock.Internal(err, fmt.Sprintf("listening on %s for the registry cache", at))
	}
	return registry.Serve(ctx, listener, cache, who), nil
}
