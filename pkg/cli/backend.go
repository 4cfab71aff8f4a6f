package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
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
	prefix := worker.Prefix(cfg.Data)
	nw, err := network.Open(ctx, network.Config{
		Prefix: prefix, Pool: cfg.Pool, Allow: cfg.Allow, RegistryPort: registryPort, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	open.add(nw.Close)
	cache, err := registry.Open(registry.Config{
		Dir: filepath.Join(cfg.Data, "registry"), Upstream: cfg.RegistryUpstream, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	open.add(cache.Close)
	mirror := netip.AddrPortFrom(nw.ServiceAddr(), registryPort)
	stopMirror, err := serveMirror(ctx, mirror, cache)
	if err != nil {
		return nil, err
	}
	open.add(stopMirror)
	w, err := worker.Open(ctx, worker.Config{
		Data: cfg.Data, Prefix: prefix, Store: db, Runtime: rt, Network: nw,
		Mirror: "http://" + mirror.String(), Logger: cfg.Log})
	if err != nil {
		return nil, err
	}
	open.add(w.Close)
	images, err := image.Open(image.Config{Dir: cfg.Images, Runner: w, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	w.UseImages(images)
	return &parts{
		Backend: w, Images: images, Keys: db, Runsc: rt.Version(), Close: open.close,
		Seeds: seeds{cache: cache, dir: filepath.Join(cfg.Images, "seed")},
	}, nil
}

// serveMirror serves the registry cache to the sandboxes.
func serveMirror(ctx context.Context, at netip.AddrPort, handler http.Handler) (stop func() error, err error) {
	listener, err := net.Listen("tcp", at.String())
	if err != nil {
		return nil, innerdock.Internal(err, fmt.Sprintf("listening on %s for the registry cache", at))
	}
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener) // ends with Close, whose error is the one that counts
	}()
	return func() error {
		err := server.Close()
		<-served
		return err
	}, nil
}
