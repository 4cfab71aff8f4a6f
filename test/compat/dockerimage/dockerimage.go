// Package dockerimage makes images with a Docker that tools/docker built, laid out
// as Docker's own packages lay it out. They stand for what with_docker() installs
// where Docker's repository can be reached.
package dockerimage

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image/debian"
	"github.com/innerdock/innerdock/pkg/registry/seed"
)

// Classic is a daemon.json that chooses the image store from before Docker 29,
// the graph drivers.
const Classic = `{"features": {"containerd-snapshotter": false}}`

// base is what Docker is put on: what stands for python:3.11 without a registry.
var base = debian.Base{Suite: "bookworm", Python: "3.11"}

// packages are what Docker's own packages depend on, and Debian's docker-init.
const packages = "iptables xz-utils pigz procps tini"

// Build makes, in the server of client, an image with the Docker that
// tools/docker/build.sh prints the directory of, and with a daemon.json ("" for
// none). Nothing is made twice. progress gets lines for people.
func Build(ctx context.Context, client *innerdock.Client, bin, daemonJSON string, progress func(line string)) (innerdock.Image, error) {
	image, err := kept(ctx, bin, progress)
	if err != nil {
		return innerdock.Image{}, err
	}
	reference, stop, err := serve(image)
	if err != nil {
		return innerdock.Image{}, err
	}
	defer stop()
	definition := innerdock.ImageDefinition{BaseImage: reference, Steps: []innerdock.ImageStep{
		{Command: "apt-get -q update && apt-get -q -y --no-install-recommends install " + packages + " && apt-get clean"},
		{Docker: &innerdock.DockerInstall{}},
	}}
	if daemonJSON != "" {
		definition.Steps = append(definition.Steps, innerdock.ImageStep{
			Command: "mkdir -p /etc/docker && echo '" + daemonJSON + "' >/etc/docker/daemon.json"})
	}
	return client.BuildImage(ctx, definition, func(_ string, e innerdock.BuildEvent) { progress(e.Message) })
}

// kept returns the base with Docker on it, which is kept beside bin.
func kept(ctx context.Context, bin string, progress func(string)) (v1.Image, error) {
	provider := debian.Provider{CertificateDir: "/usr/local/share/ca-certificates"}
	key, err := provider.Key(base)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(key + fmt.Sprint(files)))
	path := filepath.Join(filepath.Dir(bin), "image-"+hex.EncodeToString(sum[:6]))
	if image, err := seed.Load(path); err == nil {
		return image, nil
	}
	work, err := os.MkdirTemp(filepath.Dir(bin), "image-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	progress("Making " + base.Name() + " with " + filepath.Base(filepath.Dir(bin)) + ": about a minute, this once")
	image, err := assemble(ctx, provider, bin, work, progress)
	if err != nil {
		return nil, err
	}
	to, err := layout.Write(filepath.Join(work, "layout"), empty.Index)
	if err != nil {
		return nil, err
	}
	if err := to.AppendImage(image); err != nil {
		return nil, err
	}
	if err := os.Rename(filepath.Join(work, "layout"), path); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	return seed.Load(path)
}

func assemble(ctx context.Context, provider debian.Provider, bin, work string, progress func(string)) (v1.Image, error) {
	rootTar, dockerTar := filepath.Join(work, "root.tar"), filepath.Join(work, "docker.tar")
	err := write(rootTar, func(w io.Writer) error {
		tmp := filepath.Join(work, "tmp")
		if err := os.Mkdir(tmp, 0o755); err != nil {
			return err
		}
		return provider.Make(ctx, base, tmp, w, progress)
	})
	if err != nil {
		return nil, err
	}
	if err := write(dockerTar, func(w io.Writer) error { return archive(bin, w) }); err != nil {
		return nil, err
	}
	var layers []v1.Layer
	for _, path := range []string{rootTar, dockerTar} {
		layer, err := tarball.LayerFromFile(path, tarball.WithCompression(compression.ZStd), tarball.WithMediaType(types.OCILayerZStd))
		if err != nil {
			return nil, err
		}
		layers = append(layers, layer)
	}
	image, err := mutate.Config(empty.Image, v1.Config{Env: base.Env(), Cmd: base.Cmd()})
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(image, layers...)
}

func write(path string, fill func(io.Writer) error) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(fill(file), file.Close())
}

// files say where the programs of the bin directory go, and what goes along with
// them: a symbolic link is "-> target", anything else that is no program is
// content. docker-init is Debian's tini, which is static.
var files = [][2]string{
	{"usr/bin/dockerd"}, {"usr/bin/docker-proxy"}, {"usr/bin/docker"}, {"usr/bin/runc"},
	{"usr/bin/containerd"}, {"usr/bin/containerd-shim-runc-v2"}, {"usr/bin/ctr"},
	{"usr/libexec/docker/cli-plugins/docker-buildx"}, {"usr/libexec/docker/cli-plugins/docker-compose"},
	{"usr/libexec/docker/docker-init", "-> /usr/bin/tini-static"},
	{"etc/containerd/config.toml", "disabled_plugins = [\"cri\"]\n"},
}

// archive writes the layer with Docker.
func archive(bin string, to io.Writer) error {
	w := tar.NewWriter(to)
	for _, file := range files {
		header := &tar.Header{Name: file[0], Mode: 0o755, Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0)}
		content := []byte(file[1])
		target, link := strings.CutPrefix(file[1], "-> ")
		switch {
		case link:
			header.Typeflag, header.Linkname, content = tar.TypeSymlink, target, nil
		case file[1] == "":
			var err error
			if content, err = os.ReadFile(filepath.Join(bin, filepath.Base(file[0]))); err != nil {
				return err
			}
		default:
			header.Mode = 0o644
		}
		header.Size = int64(len(content))
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		if _, err := io.Copy(w, bytes.NewReader(content)); err != nil {
			return err
		}
	}
	return w.Close()
}

// serve offers an image on a registry of its own, until stop is called.
func serve(image v1.Image) (reference string, stop func(), err error) {
	blobs, err := os.MkdirTemp("", "dockerimage-")
	if err != nil {
		return "", nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(blobs))
	}
	server := &http.Server{Handler: registry.New(registry.WithBlobHandler(registry.NewDiskBlobHandler(blobs)))}
	done := make(chan struct{})
	go func() { _ = server.Serve(listener); close(done) }()
	stop = func() {
		_ = server.Close()
		<-done
		_ = os.RemoveAll(blobs)
	}
	digest, err := image.Digest()
	if err == nil {
		reference = listener.Addr().String() + "/docker@" + digest.String()
		err = push(reference, image)
	}
	if err != nil {
		stop()
		return "", nil, err
	}
	return reference, stop, nil
}

func push(reference string, image v1.Image) error {
	ref, err := name.ParseReference(reference)
	if err != nil {
		return err
	}
	return remote.Write(ref, image)
}
