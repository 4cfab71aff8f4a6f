package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/registry/seed"
	"github.com/innerdock/innerdock/pkg/runtime"
	"github.com/innerdock/innerdock/test/serving"
)

// insidePool begins the addresses of the part's own server: 10.insidePool.
const insidePool = 249

// inside measures sandboxes whose Docker has an image from the start, by the size
// of it: 0 is without one. A server of its own has a registry of its own.
func (b *bench) inside(ctx context.Context) (err error) {
	if b.images == "" {
		return errors.New("-images is missing: the server's --images directory")
	}
	dir, err := os.MkdirTemp("/var/tmp", "idk-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	blobs := filepath.Join(dir, "blobs")
	if err := os.Mkdir(blobs, 0o700); err != nil {
		return err
	}
	upstream := httptest.NewServer(registry.New(registry.WithBlobHandler(registry.NewDiskBlobHandler(blobs)), registry.Logger(log.New(io.Discard, "", 0))))
	defer upstream.Close()
	server, err := serving.New(serving.Options{Binary: b.binary, Runsc: b.runscPath, Images: b.images, Second: insidePool,
		Flags: []string{"--registry-upstream", upstream.URL, "--log-level", "warn"}, Log: os.Stderr})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Remove()) }()
	if err := server.Start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Signal(unix.SIGTERM)) }()
	own := &bench{client: server.Client, starts: b.starts}
	defer func() { b.list = append(b.list, own.list...) }()
	for size := range strings.SplitSeq("0,"+b.sizes, ",") {
		megabytes, err := strconv.Atoi(size)
		if err != nil || megabytes < 0 {
			return fmt.Errorf("-sizes: %q is no number of megabytes", size)
		}
		if err := own.withInside(ctx, upstream.URL, megabytes); err != nil {
			return fmt.Errorf("%d MB: %w", megabytes, err)
		}
	}
	return nil
}

// withInside measures with one image, which is removed afterwards.
func (b *bench) withInside(ctx context.Context, upstream string, megabytes int) (err error) {
	where := fmt.Sprintf("%d MB", megabytes)
	def := innerdock.ImageDefinition{PythonVersion: "python3.11", Steps: []innerdock.ImageStep{{Docker: &innerdock.DockerInstall{}}}}
	if _, err := b.client.BuildImage(ctx, def, nil); err != nil { // the rest of it
		return err
	}
	if megabytes > 0 {
		ref := fmt.Sprintf("bench/inside:%d-%d", megabytes, time.Now().UnixNano())
		if err := pushLarge(strings.TrimPrefix(upstream, "http://")+"/"+ref, megabytes); err != nil {
			return err
		}
		def.DockerImages = []string{ref}
	}
	began := time.Now()
	image, err := b.client.BuildImage(ctx, def, nil)
	if err != nil {
		return err
	}
	if megabytes > 0 {
		b.take("an image inside: build", where, time.Since(began).Seconds())
		defer func() { err = errors.Join(err, b.client.RemoveImage(context.WithoutCancel(ctx), image.ID)) }()
	}
	b.note("an image inside: root", "MB", where, float64(image.Size)/1e6)
	template, err := b.client.CreateTemplate(ctx, innerdock.TemplateSpec{Image: image.ID})
	if err != nil {
		return err
	}
	b.note("an image inside: checkpoint", "MB", where, float64(template.Size)/1e6)
	for range b.starts {
		if err := b.startInside(ctx, where, image.ID, def.DockerImages); err != nil {
			return err
		}
	}
	return nil
}

// startInside measures one sandbox.
func (b *bench) startInside(ctx context.Context, where, image string, run []string) (err error) {
	began := time.Now()
	sandbox, err := b.client.CreateSandbox(ctx, innerdock.SandboxSpec{Image: image, Docker: innerdock.DockerSpec{Enabled: true}})
	if err != nil {
		return err
	}
	defer func() {
		_, failure := b.client.Terminate(context.WithoutCancel(ctx), sandbox.ID)
		err = errors.Join(err, failure)
	}()
	if _, err := b.client.WaitDocker(ctx, sandbox.ID); err != nil {
		return err
	}
	b.take("an image inside: create → Docker answers", where, time.Since(began).Seconds())
	if sandbox.Start != innerdock.StartWarm {
		return fmt.Errorf("sandbox %s was started %s", sandbox.ID, sandbox.Start)
	}
	pss, err := proportional(sandbox.ID)
	if err != nil {
		return err
	}
	b.note("an image inside: memory of a sandbox", "MB", where, pss/1e6)
	for _, ref := range run {
		if _, err := b.in(sandbox.ID).exec(ctx, "docker", "run", "--rm", "--pull=never", ref); err != nil {
			return err
		}
		b.take("an image inside: create → first docker run is over", where, time.Since(began).Seconds())
	}
	disk, err := onDisk(sandbox.ID)
	b.note("an image inside: disk of a sandbox", "MB", where, disk/1e6)
	return err
}

// onDisk is what a sandbox has on the host's disk, in bytes.
func onDisk(id string) (float64, error) {
	pids, err := tasks(id)
	if err != nil {
		return 0, err
	}
	var failures error
	for _, pid := range pids {
		number, err := strconv.Atoi(pid)
		if err == nil {
			var files runtime.Filestores
			if files, err = runtime.FindFilestores(number); err == nil {
				return float64(files.Size()), nil
			}
		}
		failures = errors.Join(failures, err)
	}
	return 0, failures
}

// pushLarge stores hello-world with files that nothing can compress on top, in
// layers of at most 500 MB.
func pushLarge(reference string, megabytes int) error {
	ref, err := name.NewTag(reference, name.Insecure)
	if err != nil {
		return err
	}
	img, err := seed.HelloWorld()
	for i := 0; err == nil && megabytes > 0; i++ {
		var layer v1.Layer
		layer, err = tarball.LayerFromOpener(largeLayer(uint64(i), min(megabytes, 500)), tarball.WithMediaType(types.DockerLayer), tarball.WithCompressionLevel(gzip.NoCompression))
		if err == nil {
			img, err = mutate.AppendLayers(img, layer)
		}
		megabytes -= 500
	}
	if err != nil {
		return err
	}
	return remote.Write(ref, img)
}

// largeLayer makes a layer of files of 1 MB, the same each time.
func largeLayer(serial uint64, megabytes int) tarball.Opener {
	return func() (io.ReadCloser, error) {
		reader, writer := io.Pipe()
		go func() { // ends when it is read, or closed
			out := tar.NewWriter(writer)
			var err error
			for i := 0; err == nil && i < megabytes; i++ {
				err = out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("large/%d/%d", serial, i), Mode: 0o644, Size: 1e6})
				if err == nil {
					_, err = io.CopyN(out, rand.NewChaCha8([32]byte{byte(serial), byte(serial >> 8), byte(i), byte(i >> 8)}), 1e6)
				}
			}
			writer.CloseWithError(errors.Join(err, out.Close()))
		}()
		return reader, nil
	}
}
