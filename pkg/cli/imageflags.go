package cli

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/spf13/pflag"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/buildcontext"
	"github.com/innerdock/innerdock/pkg/image"
)

var (
	pythonVersion = regexp.MustCompile(`^python[0-9]+\.[0-9]+$`)
	imageID       = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// imageFlags say what is put on a base image. Steps keep the order of the flags.
type imageFlags struct {
	steps  []innerdock.ImageStep
	images []string
	env    []string
	docker string
	define definitionFlags
}

// definitionFlags are those of commands that only define an image: a sandbox has
// flags of its own for what processes begin with.
type definitionFlags struct {
	withDocker    bool
	workdir, user string
	file, target  string
	args, secrets []string
	login         registryLogin
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
	flags.Var(step{"REQUIREMENT", func(v string) {
		f.steps = append(f.steps, innerdock.ImageStep{Micromamba: &innerdock.MicromambaInstall{Packages: []string{v}}})
	}}, "micromamba", "install this package of conda-forge in the image (repeatable)")
	flags.StringArrayVar(&f.images, "docker-image", nil, "image that Docker has from the start, such as redis:7 (repeatable)")
	flags.StringVar(&f.docker, "docker-source", "auto", "where Docker is installed from: auto, docker-ce or distro")
}

// registerDefinition adds the flags of commands that only define an image.
func (f *imageFlags) registerDefinition(flags *pflag.FlagSet) {
	f.register(flags)
	flags.StringArrayVarP(&f.env, "env", "e", nil, "NAME=VALUE for every process of its sandboxes (repeatable)")
	flags.BoolVar(&f.define.withDocker, "docker", false, "install Docker")
	flags.StringVarP(&f.define.workdir, "workdir", "w", "", "where processes of its sandboxes begin (default: the base's, else /workspace)")
	flags.StringVarP(&f.define.user, "user", "u", "", "whom they run as: a name or number, and :GROUP if need be (default: root, or the base's without steps)")
}

// registerDockerfile adds the flags of a build that begins with a Dockerfile.
func (f *imageFlags) registerDockerfile(flags *pflag.FlagSet) {
	flags.StringVarP(&f.define.file, "file", "f", "", "the Dockerfile (default: CONTEXT/Dockerfile)")
	flags.StringVar(&f.define.target, "target", "", "the stage of the Dockerfile to build (default: the last)")
	flags.StringArrayVar(&f.define.args, "build-arg", nil, "NAME=VALUE, or NAME for that of the environment (repeatable)")
	flags.StringArrayVar(&f.define.secrets, "secret", nil, "id=NAME[,src=FILE|,env=VARIABLE]: a secret for the steps, which the image does not keep (repeatable)")
}

// isContext reports whether what is to be built is a directory with a Dockerfile.
func (f *imageFlags) isContext(name string) bool {
	return f.define.file != "" || name == "." || name == ".." || strings.HasPrefix(name, "/") || strings.HasPrefix(name, "./") || strings.HasPrefix(name, "../")
}

// define reads what is to be built: a base, or a directory with a Dockerfile.
func (a *app) define(f *imageFlags, name string) (innerdock.ImageDefinition, error) {
	def, err := f.definition(name, f.define.withDocker)
	if err != nil {
		return def, err
	}
	if def.Secrets, def.Values, err = a.secrets(f.define.secrets); err != nil {
		return def, err
	}
	if !f.isContext(name) {
		if f.define.target != "" || len(f.define.args) > 0 {
			return def, usage("--target and --build-arg go with a Dockerfile: name its directory, such as . or ./app")
		}
		return def, nil
	}
	def.BaseImage, def.PythonVersion = "", ""
	text, err := os.ReadFile(f.dockerfile(name))
	if err != nil {
		return def, usage("%w", err)
	}
	def.Dockerfile = &innerdock.ImageDockerfile{Text: string(text), Target: f.define.target, Args: map[string]string{}}
	for _, arg := range f.define.args {
		key, value, given := strings.Cut(arg, "=")
		if !given {
			value = a.Getenv(key)
		}
		if key == "" {
			return def, usage("--build-arg %s: write it as NAME=VALUE", arg)
		}
		def.Dockerfile.Args[key] = value
	}
	return def, nil
}

func (f *imageFlags) dockerfile(dir string) string {
	if f.define.file != "" {
		return f.define.file
	}
	return filepath.Join(dir, "Dockerfile")
}

// secrets reads what --secret names.
func (a *app) secrets(flags []string) (names []string, values innerdock.SecretValues, err error) {
	for _, flag := range flags {
		fields := map[string]string{}
		for field := range strings.SplitSeq(flag, ",") {
			key, value, _ := strings.Cut(field, "=")
			if key == "source" {
				key = "src"
			}
			if value == "" || fields[key] != "" || key != "id" && key != "src" && key != "env" && key != "type" {
				return nil, nil, usage("--secret %s: write it as id=NAME,src=FILE or id=NAME,env=VARIABLE", flag)
			}
			fields[key] = value
		}
		name := fields["id"]
		if name == "" || fields["src"] != "" && fields["env"] != "" {
			return nil, nil, usage("--secret %s: write it as id=NAME,src=FILE or id=NAME,env=VARIABLE", flag)
		}
		value := a.Getenv(cmp.Or(fields["env"], name))
		if fields["src"] != "" {
			content, err := os.ReadFile(fields["src"])
			if err != nil {
				return nil, nil, usage("--secret %s: %w", flag, err)
			}
			value = string(content)
		}
		if value == "" {
			return nil, nil, usage("--secret %s: it is empty, or not in the environment", flag)
		}
		if values == nil {
			values = innerdock.SecretValues{}
		}
		names, values[name] = append(names, name), value
	}
	return names, values, nil
}

// buildImage builds a definition, with the files of its directory if it has one.
func (a *app) buildImage(ctx context.Context, c *innerdock.Client, f *imageFlags, name string, p *progress) (innerdock.Image, error) {
	def, err := a.define(f, name)
	if err != nil {
		return innerdock.Image{}, err
	}
	if f.define.login.given() {
		if def.Credentials, err = f.define.login.credentials(a); err != nil {
			return innerdock.Image{}, err
		}
	}
	if def.Dockerfile == nil {
		return c.BuildImage(ctx, def, p.build)
	}
	if def.Credentials == nil {
		if def.Registries, err = a.accountsFor(def.Dockerfile.Text, p); err != nil {
			return innerdock.Image{}, err
		}
	}
	files, err := buildcontext.Pack(ctx, name, filepath.Base(f.dockerfile(name)))
	if err != nil {
		return innerdock.Image{}, err
	}
	defer files.Archive.Close()
	def.Context = files.Digest
	image, err := c.FindImage(ctx, def)
	if innerdock.CodeOf(err) != innerdock.CodeImageNotFound {
		return image, err
	}
	p.say("context: sending %s", size(files.Size))
	return c.BuildImageFrom(ctx, def, files.Archive, p.build)
}

// accountsFor are the accounts that this user has, as `docker build` finds them, at
// the registries of a Dockerfile's bases. Those of a token alone are left out.
func (a *app) accountsFor(dockerfile string, p *progress) (map[string]innerdock.RegistryCredentials, error) {
	keychain, err := a.keychain()
	if err != nil {
		return nil, err
	}
	found := map[string]innerdock.RegistryCredentials{}
	for _, host := range image.Registries(dockerfile) {
		registry, err := name.NewRegistry(host)
		if err != nil {
			continue
		}
		var account *authn.AuthConfig
		authenticator, err := keychain.Resolve(registry)
		if err == nil {
			account, err = authenticator.Authorization()
		}
		switch {
		case err != nil:
			p.say("accounts: none at %s: %v", host, err)
		case account.Username != "" && account.Password != "":
			found[host] = innerdock.RegistryCredentials{Username: account.Username, Password: account.Password}
		}
	}
	return found, nil
}

// definition is the image that name, a base, and the flags ask for.
func (f *imageFlags) definition(name string, withDocker bool) (innerdock.ImageDefinition, error) {
	env, err := parseEnv(f.env)
	if err != nil {
		return innerdock.ImageDefinition{}, err
	}
	def := innerdock.ImageDefinition{BaseImage: name, Steps: f.steps, DockerImages: f.images, Env: env, WorkingDir: f.define.workdir, User: f.define.user}
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
		if len(f.steps)+len(f.images) > 0 {
			return "", usage("%s is built already: --step, --pip and --docker-image go with a base image", name)
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
