package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/innerdock/innerdock/pkg/registry/seed"
)

// Kit is what every place gets before the checks.
type Kit struct {
	Tool   []byte // test/compat/tool, static
	Images []byte // an archive for docker load: hello-world, busybox, nginx, and box
}

// NewKit makes a kit, with the images in cacheDir that take long to make. The
// image box is busybox and the tool.
func NewKit(ctx context.Context, cacheDir string) (Kit, error) {
	tool, err := buildTool(ctx)
	if err != nil {
		return Kit{}, err
	}
	hello, err := seed.HelloWorld()
	if err != nil {
		return Kit{}, err
	}
	busybox, err := seed.Busybox(ctx, cacheDir, func(string) {})
	if err != nil {
		return Kit{}, err
	}
	nginx, err := seed.Nginx(ctx, cacheDir, func(string) {})
	if err != nil {
		return Kit{}, err
	}
	box, err := withTool(busybox, tool)
	if err != nil {
		return Kit{}, err
	}
	images := map[name.Reference]v1.Image{}
	for tag, image := range map[string]v1.Image{"hello-world": hello, "busybox": busybox, "nginx": nginx, "box": box} {
		reference, err := name.ParseReference(tag)
		if err != nil {
			return Kit{}, err
		}
		images[reference] = image
	}
	var archive bytes.Buffer
	if err := tarball.MultiRefWrite(images, &archive); err != nil {
		return Kit{}, err
	}
	return Kit{Tool: tool, Images: archive.Bytes()}, nil
}

func buildTool(ctx context.Context) ([]byte, error) {
	dir, err := os.MkdirTemp("", "compat-tool-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "tool")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "github.com/innerdock/innerdock/test/compat/tool")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the tool: %w: %s", err, out)
	}
	return os.ReadFile(path)
}

// withTool adds a layer with /bin/tool.
func withTool(image v1.Image, tool []byte) (v1.Image, error) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: "bin/tool", Mode: 0o755, Size: int64(len(tool)), Typeflag: tar.TypeReg}); err != nil {
		return nil, err
	}
	if _, err := w.Write(tool); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive.Bytes())), nil })
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(image, layer)
}
