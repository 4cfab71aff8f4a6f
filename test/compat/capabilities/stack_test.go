package capabilities

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image"
	"github.com/innerdock/innerdock/pkg/network"
	"github.com/innerdock/innerdock/pkg/registry"
	"github.com/innerdock/innerdock/pkg/registry/seed"
	"github.com/innerdock/innerdock/pkg/runtime"
	"github.com/innerdock/innerdock/pkg/runtime/runtimetest"
	"github.com/innerdock/innerdock/pkg/server"
	"github.com/innerdock/innerdock/pkg/store"
	"github.com/innerdock/innerdock/pkg/worker"
	"github.com/innerdock/innerdock/test/freepool"
)

const registryPort = 5000

// stack is a whole server in this process, whose runtime can take a capability
// away from the sandboxes that it creates.
type stack struct {
	client  *innerdock.Client
	image   string
	runtime *poorer
}

// poorer is a runtime whose next sandboxes lack one capability. The name that
// a sandbox was created with says which one.
type poorer struct {
	runtime.Runtime
	mu   sync.Mutex
	lack map[string]string // by host name
}

func (p *poorer) Create(ctx context.Context, s runtime.Spec) (int, error) {
	p.mu.Lock()
	s.WithoutCapability = p.lack[s.Hostname]
	p.mu.Unlock()
	return p.Runtime.Create(ctx, s)
}

// create makes a sandbox with Docker that lacks a capability, or none for "".
func (s *stack) create(ctx context.Context, capability string) (innerdock.Sandbox, error) {
	name := "without-" + hostName(capability)
	s.runtime.mu.Lock()
	s.runtime.lack[name] = capability
	s.runtime.mu.Unlock()
	return s.client.CreateSandbox(ctx, innerdock.SandboxSpec{
		Name: name, Image: s.image, CPU: 1, Memory: "2Gi", Docker: innerdock.DockerSpec{Enabled: true},
	})
}

func hostName(capability string) string {
	if capability == "" {
		return "nothing"
	}
	name := []byte(capability)
	for i, c := range name {
		switch {
		case c == '_':
			name[i] = '-'
		default:
			name[i] = c | 0x20 // lower case
		}
	}
	return string(name)
}

// newStack puts the server together. It builds the image with Docker the first
// time, in the image store that all tests share.
func newStack(t *testing.T) *stack {
	t.Helper()
	ctx := t.Context()
	images := os.Getenv("INNERDOCK_IMAGES")
	if images == "" {
		images = filepath.Join(filepath.Dir(filepath.Dir(filepath.Dir(runtimetest.Runsc(t)))), "images")
	}
	dir := t.TempDir()
	log := slog.New(slog.NewTextHandler(&testWriter{t: t}, nil))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	closing := func(what string, f func() error) {
		t.Cleanup(func() {
			if err := f(); err != nil {
				t.Errorf("closing %s: %v", what, err)
			}
		})
	}

	runsc, err := runtime.NewRunsc(ctx, runtime.RunscConfig{Path: runtimetest.Runsc(t), Root: filepath.Join(dir, "runsc"), Log: log})
	must(err)
	closing("runsc", func() error { return runsc.Close(context.WithoutCancel(ctx)) })
	rt := &poorer{Runtime: runsc, lack: map[string]string{}}
	db, err := store.Open(ctx, filepath.Join(dir, "innerdock.db"))
	must(err)
	closing("the store", db.Close)
	prefix := worker.Prefix(dir)
	pool, err := freepool.In(229)
	if err != nil {
		t.Fatal(err)
	}
	nw, err := network.Open(ctx, network.Config{Prefix: prefix, Pool: pool, RegistryPort: registryPort, Log: log})
	must(err)
	closing("the network", nw.Close)
	cache, err := registry.Open(registry.Config{Dir: filepath.Join(dir, "registry")})
	must(err)
	closing("the registry cache", cache.Close)
	must(seed.All(ctx, cache, filepath.Join(images, "seed"), []string{"hello-world", "busybox"}, nil))
	mirror := netip.AddrPortFrom(nw.ServiceAddr(), registryPort)
	closing("the registry cache's server", serve(t, "tcp", mirror.String(), cache))
	w, err := worker.Open(ctx, worker.Config{
		Data: dir, Prefix: prefix, Store: db, Runtime: rt, Network: nw, Mirror: "http://" + mirror.String(), Logger: log,
	})
	must(err)
	closing("the worker", w.Close)
	imageStore, err := image.Open(image.Config{Dir: images, Runner: w, Log: log})
	must(err)
	w.UseImages(imageStore)
	api := server.New(server.Config{Backend: w, Images: imageStore, Keys: db, Runsc: runsc.Version(), Log: log})
	socket := filepath.Join(dir, "api.sock")
	closing("the API", serve(t, "unix", socket, api.Local()))
	client, err := innerdock.New("unix://"+socket, "")
	must(err)
	closing("the client", func() error { client.Close(); return nil })

	built, err := client.BuildImage(ctx, innerdock.ImageDefinition{
		PythonVersion: "python3.11", Steps: []innerdock.ImageStep{{Docker: &innerdock.DockerInstall{}}},
	}, nil)
	must(err)
	return &stack{client: client, image: built.ID, runtime: rt}
}

// serve answers on an address until the returned function is called.
func serve(t *testing.T, kind, address string, handler http.Handler) (stop func() error) {
	t.Helper()
	listener, err := net.Listen(kind, address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	return func() error {
		err := server.Close()
		if served := <-done; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return err
	}
}

// testWriter shows the server's log with the test's.
type testWriter struct{ t *testing.T }

func (w *testWriter) Write(p []byte) (int, error) {
	w.t.Log(string(p))
	return len(p), nil
}
