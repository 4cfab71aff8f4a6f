package seed

import (
	"embed"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/innerdock/innerdock"
)

//go:embed hellobin/*
var programs embed.FS

// HelloWorld is the image hello-world. Errors: CodeUnsupported in a build that
// left its program out.
func HelloWorld() (v1.Image, error) {
	program, err := programs.ReadFile("hellobin/hello")
	if err != nil {
		return nil, innerdock.Errorf(innerdock.CodeUnsupported,
			"this innerdock was built without its hello-world image; build it with `make build`")
	}
	layer, err := newLayer([]entry{{name: "hello", mode: 0o755, content: program}})
	if err != nil {
		return nil, innerdock.Internal(err, "making the hello-world image")
	}
	return newImage(v1.Config{Cmd: []string{"/hello"}, Env: []string{defaultPath}, WorkingDir: "/"}, layer)
}
