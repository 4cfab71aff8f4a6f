package cli

import (
	"context"
	"regexp"
	"strings"

	"github.com/spf13/pflag"

	"github.com/innerdock/innerdock"
)

var (
	pythonVersion = regexp.MustCompile(`^python[0-9]+\.[0-9]+$`)
	imageID       = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// imageFlags say what is put on a base image. Steps keep the order of the flags.
type imageFlags struct {
	steps  []innerdock.ImageStep
	env    []string
	docker string
}

// step is a flag that adds a step each time it is given.
type step struct {
	kind string
	add  func(value string)
}

func (s step) String() string         { return "" }
func (s step) Type() string           { return s.kind }
func (s step) Set(value string) error { s.add(value); return nil }

func (f *imageFlags) register(flags *pflag.FlagSet) {
	flags.Var(step{"COMMAND", func(v string) {
		f.steps = append(f.steps, innerdock.ImageStep{Command: v})
	}}, "step", "run this line of shell in the image, as root (repeatable)")
	flags.Var(step{"REQUIREMENT", func(v string) {
		f.steps = append(f.steps, innerdock.ImageStep{PythonPackages: []string{v}})
	}}, "pip", "install this Python package in the image (repeatable)")
	flags.StringVar(&f.docker, "docker-source", "auto", "where Docker is installed from: auto, docker-ce or distro")
}

// definition is the image that name, a base, and the flags ask for.
func (f *imageFlags) definition(name string, withDocker bool) (innerdock.ImageDefinition, error) {
	env, err := parseEnv(f.env)
	if err != nil {
		return innerdock.ImageDefinition{}, err
	}
	def := innerdock.ImageDefinition{BaseImage: name, Steps: f.steps, Env: env}
	if pythonVersion.MatchString(name) {
		def.BaseImage, def.PythonVersion = "", name
	}
	if withDocker {
		install := innerdock.ImageStep{Docker: &innerdock.DockerInstall{Source: innerdock.DockerSource(f.docker)}}
		def.Steps = append([]innerdock.ImageStep{install}, def.Steps...)
	}
	return def, nil
}

// resolve returns the ID of the image that name means: the ID of a built one,
// a Python version or a reference. The latter two are built if need be.
func (f *imageFlags) resolve(ctx context.Context, c *innerdock.Client, p *progress, name string, withDocker bool) (string, error) {
	if imageID.MatchString(name) {
		if len(f.steps) > 0 {
			return "", usage("%s is built already: --step and --pip go with a base image", name)
		}
		return name, nil
	}
	def, err := f.definition(name, withDocker)
	if err != nil {
		return "", err
	}
	image, err := c.BuildImage(ctx, def, p.build)
	p.done(err != nil && ctx.Err() == nil)
	return image.ID, err
}

// parseEnv reads K=V pairs.
func parseEnv(pairs []string) (map[string]string, error) {
	if len(pairs) == 0 {
		return nil, nil
	}
	env := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, usage("-e %s: write it as NAME=VALUE", pair)
		}
		env[key] = value
	}
	return env, nil
}
