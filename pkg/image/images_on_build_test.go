package image_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image"
	"github.com/innerdock/innerdock/pkg/image/imagetest"
)

// archiveBuilder has built an archive already.
type archiveBuilder struct {
	archive []byte
	builds  int
}

func (b *archiveBuilder) BuildDockerfile(_ context.Context, _ string, _ image.DockerfileBuild, _ func(string), take func(io.Reader) error) error {
	b.builds++
	return take(bytes.NewReader(b.archive))
}

// namingRunner leaves the names of images where these would be.
type namingRunner struct {
	imagetest.LocalRunner
	layer func(files) []byte
	pulls int
}

func (r *namingRunner) PullInside(_ context.Context, _ string, _ map[string]string, images []string, _ func(int, string), layer io.Writer) error {
	r.pulls++
	_, err := layer.Write(r.layer(files{"var/lib/innerdock/names": strings.Join(images, " ")}))
	return err
}

// What BuildKit has built gets Docker images as well, and is found again with them.
func TestDockerImagesOnADockerfile(t *testing.T) {
	h := newHub(t)
	other := newStore(t, image.Config{Transport: h})
	made := build(t, other, innerdock.ImageDefinition{BaseImage: h.push("app", imageOf(t, v1.Config{User: "app"}, files{"a": "1"}))})
	var archive bytes.Buffer
	if err := other.Export(t.Context(), made.ID, func() {}, &archive); err != nil {
		t.Fatal(err)
	}
	builder := &archiveBuilder{archive: archive.Bytes()}
	runner := &namingRunner{LocalRunner: imagetest.LocalRunner{Dir: t.TempDir()}, layer: func(f files) []byte { return tarOf(t, f) }}
	s := newStore(t, image.Config{Transport: h, Runner: runner, Builder: builder})
	def := innerdock.ImageDefinition{Dockerfile: &innerdock.ImageDockerfile{Text: "FROM x\n"}, DockerImages: []string{"redis:7", "nginx"}}
	img, err := s.BuildFrom(t.Context(), "one", def, nil, logEvents(t))
	if err != nil {
		t.Fatal(err)
	}
	wantFiles(t, s, img.ID, files{"a": "1", "var/lib/innerdock/names": "redis:7 nginx"})
	if img.User != "app" || img.Source != "dockerfile" || img.Cached {
		t.Errorf("it is %+v", img)
	}
	if again, err := s.Find(t.Context(), "one", def); err != nil || again.ID != img.ID || !again.Cached {
		t.Errorf("it is found as %+v, %v", again, err)
	}
	if again, err := s.BuildFrom(t.Context(), "one", def, nil, nil); err != nil || again.ID != img.ID || !again.Cached || builder.builds != 1 || runner.pulls != 1 {
		t.Errorf("after %d builds and %d pulls it is %+v, %v", builder.builds, runner.pulls, again, err)
	}
	def.DockerImages = nil
	if bare, err := s.Find(t.Context(), "one", def); err != nil || bare.ID == img.ID {
		t.Errorf("without its images it is %+v, %v", bare, err)
	}
	def.DockerImages = []string{"redis:7"}
	_, err = s.Find(t.Context(), "one", def)
	wantCode(t, err, innerdock.CodeImageNotFound)
}
