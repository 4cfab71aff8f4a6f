package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/vishvananda/netns"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/test/elsewhere"
	"github.com/innerdock/innerdock/test/native"
)

// pullAndRun has a target.
const pullAndRun = "pull 1 GB → first process"

// The images: of layers of one size, and one that is small.
const (
	layerBytes = 128 << 20
	smallBytes = 50 << 20
	oneGB      = 8  // layers
	twoGB      = 16 // layers
)

// pulls measures the way from a registry on this machine to a first process,
// with Docker on the host's kernel by turns, and what a sandbox's creation costs
// by the size of its image.
func (b *bench) pulls(ctx context.Context) (err error) {
	shell, err := b.busybox(ctx)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/var/tmp", "idk-images-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	shelf := registry.New(registry.WithBlobHandler(registry.NewDiskBlobHandler(dir)), registry.Logger(log.New(io.Discard, "", 0)))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: shelf}
	defer func() { err = errors.Join(err, server.Close()) }()
	go func() { _ = server.Serve(listener) }() // until it is closed
	host := listener.Addr().String()
	if err := pushImages(dir, host, shell); err != nil {
		return err
	}
	if b.images != "" {
		docker, err := native.Start(ctx, native.Root(b.images, b.image.ID))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, docker.Stop()) }()
		nearby, err := listenIn(docker.PID(), host)
		if err != nil {
			return err
		}
		go func() { _ = server.Serve(nearby) }() // until it is closed
		if err := b.pullRounds(ctx, host, onHost(docker)); err != nil {
			return err
		}
	} else if err := b.pullRounds(ctx, host, nil); err != nil {
		return err
	}
	return b.createBySize(ctx, host)
}

func (b *bench) pullRounds(ctx context.Context, host string, docker *place) error {
	ref := host + "/large:1"
	for range max(1, b.rounds/3) {
		if err := b.pullInside(ctx, ref); err != nil {
			return err
		}
		if docker == nil {
			continue
		}
		began := time.Now()
		pulled, err := docker.timed(ctx, "docker", "pull", "-q", ref)
		if err != nil {
			return err
		}
		if _, err := docker.exec(ctx, "docker", "run", "--rm", "--network", "none", ref, "true"); err != nil {
			return err
		}
		b.take(pullAndRun, onOwn, time.Since(began).Seconds())
		b.take("  of it: pull", onOwn, pulled)
		if _, err := docker.exec(ctx, "docker", "rmi", ref); err != nil {
			return err
		}
	}
	return nil
}

// pullInside pulls, creates, runs, and removes it all.
func (b *bench) pullInside(ctx context.Context, ref string) (err error) {
	began := time.Now()
	image, err := b.client.BuildImage(ctx, innerdock.ImageDefinition{BaseImage: ref}, nil)
	if err != nil {
		return err
	}
	pulled := time.Since(began)
	sandbox, err := b.client.CreateSandbox(ctx, innerdock.SandboxSpec{Image: image.ID})
	if err != nil {
		return err
	}
	_, err = b.in(sandbox.ID).exec(ctx, "true")
	b.take(pullAndRun, inside, time.Since(began).Seconds())
	b.take("  of it: pull", inside, pulled.Seconds())
	_, failure := b.client.Terminate(ctx, sandbox.ID)
	return errors.Join(err, failure, b.client.RemoveImage(ctx, image.ID))
}

// createBySize creates sandboxes from a small and a large image by turns.
func (b *bench) createBySize(ctx context.Context, host string) (err error) {
	var images []innerdock.Image
	for _, ref := range []string{"small", "huge"} {
		image, err := b.client.BuildImage(ctx, innerdock.ImageDefinition{BaseImage: host + "/" + ref + ":1"}, nil)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, b.client.RemoveImage(ctx, image.ID)) }()
		images = append(images, image)
	}
	for range 2 * b.starts {
		for i, name := range []string{"create → first exec, of 50 MB", "create → first exec, of 2 GB"} {
			began := time.Now()
			sandbox, err := b.client.CreateSandbox(ctx, innerdock.SandboxSpec{Image: images[i].ID})
			if err != nil {
				return err
			}
			_, err = b.in(sandbox.ID).exec(ctx, "true")
			b.take(name, inside, time.Since(began).Seconds())
			_, failure := b.client.Terminate(ctx, sandbox.ID)
			if err := errors.Join(err, failure); err != nil {
				return err
			}
		}
	}
	return nil
}

// pushImages makes the images and pushes them to the registry.
func pushImages(dir, host string, shell []byte) error {
	layer := func(n uint64, bytes int) (v1.Layer, error) {
		name := filepath.Join(dir, fmt.Sprintf("layer-%d.tar.gz", n))
		if err := writeLayer(name, n, bytes, shell); err != nil {
			return nil, err
		}
		return tarball.LayerFromFile(name)
	}
	base, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH, Config: v1.Config{Env: []string{"PATH=/bin"}}})
	if err != nil {
		return err
	}
	first, err := layer(0, smallBytes)
	if err != nil {
		return err
	}
	image, err := mutate.AppendLayers(base, first)
	if err != nil {
		return err
	}
	if err := push(host+"/small:1", image); err != nil {
		return err
	}
	for n := range twoGB {
		next, err := layer(uint64(n)+1, layerBytes)
		if err != nil {
			return err
		}
		if image, err = mutate.AppendLayers(image, next); err != nil {
			return err
		}
		if n+1 == oneGB {
			if err := push(host+"/large:1", image); err != nil {
				return err
			}
		}
	}
	return push(host+"/huge:1", image)
}

func push(reference string, image v1.Image) error {
	ref, err := name.ParseReference(reference)
	if err != nil {
		return err
	}
	return remote.Write(ref, image)
}

// writeLayer writes a layer as registries have it. The first has busybox.
func writeLayer(name string, n uint64, bytes int, shell []byte) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	packed, err := gzip.NewWriterLevel(file, gzip.BestSpeed)
	if err != nil {
		return err
	}
	out := tar.NewWriter(packed)
	if n == 0 {
		err = writeShell(out, shell)
	}
	return errors.Join(err, writeFiles(out, fmt.Sprintf("opt/layer%d", n), n, bytes), out.Close(), packed.Close(), file.Close())
}

// listenIn listens at an address of a process's network.
func listenIn(pid int, address string) (listener net.Listener, err error) {
	theirs, err := netns.GetFromPid(pid)
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	err = elsewhere.In(theirs, func() (err error) {
		listener, err = net.Listen("tcp", address)
		return err
	})
	return listener, err
}
