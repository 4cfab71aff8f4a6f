package seed

import (
	"archive/tar"
	"context"
	"embed"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/innerdock/innerdock"
)

//go:embed nginx/*
var nginxFiles embed.FS

// nginxLayout is where the image's own files go.
var nginxLayout = map[string]string{
	"nginx/50x.html":     "usr/share/nginx/html/50x.html",
	"nginx/default.conf": "etc/nginx/conf.d/default.conf",
	"nginx/index.html":   "usr/share/nginx/html/index.html",
	"nginx/nginx.conf":   "etc/nginx/nginx.conf",
}

// nginxOptions make a root with nginx, and curl for health checks.
var nginxOptions = []string{
	"--variant=essential", "--include=nginx,curl,ca-certificates",
	"--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
	"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright",
}

// Nginx is the image nginx, from Debian's package, with the official image's
// conventions: pages in /usr/share/nginx/html, configuration in
// /etc/nginx/conf.d, port 80, logs to the container's output, SIGQUIT to stop.
// It is kept in cacheDir; making it the first time takes about 40 seconds and
// needs root.
func Nginx(ctx context.Context, cacheDir string, progress func(string)) (v1.Image, error) {
	own, err := nginxEntries()
	if err != nil {
		return nil, innerdock.Internal(err, "reading the files of the nginx image")
	}
	inputs := []any{suite, nginxOptions, digestsOf(own), "recipe 1"}
	return cached(cacheDir, "nginx", inputs, func(work string) (v1.Image, error) {
		progress("making nginx:latest from Debian's nginx (about 40 s, once)")
		archive := filepath.Join(work, "packages.tar")
		if err := fromPackages(ctx, work, archive, nginxOptions...); err != nil {
			return nil, err
		}
		compressed := filepath.Join(work, "layer.tar.gz")
		if err := compressTar(archive, compressed, belongsInImage); err != nil {
			return nil, innerdock.Internal(err, "making the nginx image")
		}
		packages, err := tarball.LayerFromFile(compressed, tarball.WithMediaType(types.DockerLayer))
		if err != nil {
			return nil, innerdock.Internal(err, "making the nginx image")
		}
		files, err := newLayer(own)
		if err != nil {
			return nil, innerdock.Internal(err, "making the nginx image")
		}
		return newImage(v1.Config{
			Cmd: []string{"nginx", "-g", "daemon off;"}, Env: []string{defaultPath},
			ExposedPorts: map[string]struct{}{"80/tcp": {}}, StopSignal: "SIGQUIT",
		}, packages, files)
	})
}

func nginxEntries() ([]entry, error) {
	entries := []entry{
		{name: "var/log/nginx/access.log", link: "/dev/stdout"},
		{name: "var/log/nginx/error.log", link: "/dev/stderr"},
		{name: "usr/share/nginx/html/", mode: 0o755},
	}
	names, err := nginxFiles.ReadDir("nginx")
	if err != nil {
		return nil, err
	}
	for _, file := range names {
		name := "nginx/" + file.Name()
		content, err := nginxFiles.ReadFile(name)
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{name: nginxLayout[name], mode: 0o644, content: content})
	}
	return entries, nil
}

// digestsOf names entries and their content, for the key of a cache.
func digestsOf(entries []entry) []string {
	var all []string
	for _, e := range entries {
		all = append(all, e.name, e.link, string(e.content))
	}
	return all
}

// belongsInImage leaves out what containers get at run time, and devices.
func belongsInImage(h *tar.Header) bool {
	name := strings.TrimPrefix(h.Name, "./")
	switch {
	case h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock:
		return false
	case name == "etc/hostname" || name == "etc/resolv.conf" || name == "etc/fstab":
		return false
	}
	return !strings.HasPrefix(name, "dev/") || name == "dev/"
}
