package seed

import (
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/innerdock/innerdock"
)

// ryuk is the image that test libraries start to have their containers removed,
// with the tag that testcontainers for Python asks for.
const (
	ryuk    = "testcontainers/ryuk"
	ryukTag = "0.8.1"
)

// Reaper is the image testcontainers/ryuk: a program of this project that does
// what the original does. Errors: CodeUnsupported in a build that left it out.
func Reaper() (v1.Image, error) {
	program, err := programs.ReadFile("hellobin/reaper")
	if err != nil {
		return nil, innerdock.Errorf(innerdock.CodeUnsupported,
			"this innerdock was built without its %s image; build it with `make build`", ryuk)
	}
	layer, err := newLayer([]entry{{name: "reaper", mode: 0o755, content: program}})
	if err != nil {
		return nil, innerdock.Internal(err, "making the "+ryuk+" image")
	}
	return newImage(v1.Config{Cmd: []string{"/reaper"}, Env: []string{defaultPath}, WorkingDir: "/"}, layer)
}
