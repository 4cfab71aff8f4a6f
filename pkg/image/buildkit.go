package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/ctxio"
)

// sourceDockerfile is where an image came from that BuildKit made.
const sourceDockerfile = "dockerfile"

// builderImage is what builders are made from.
var builderImage = innerdock.ImageDefinition{
	PythonVersion: "python" + defaultPython, Steps: []innerdock.ImageStep{{Docker: &innerdock.DockerInstall{}}},
}

// Caps of a build that begins with a Dockerfile.
const (
	maxDockerfile = 512 << 10 // bytes of its text
	maxArgs       = 64 << 10  // bytes of all build arguments
	maxBuildLines = 40        // that the error of a failed build shows
)

// BuildFrom returns the image of a definition for a tenant, and makes it if it is
// not there. files, a tar archive, is what copy steps and a Dockerfile take from;
// nil: nothing. What needs BuildKit is built in the tenant's builder, and what
// needs it not as Build does. progress is called as by Build.
func (s *Store) BuildFrom(ctx context.Context, tenant string, def innerdock.ImageDefinition, files io.Reader, progress func(event string, e innerdock.BuildEvent)) (innerdock.Image, error) {
	p, err := newPlan(def)
	if err != nil {
		return innerdock.Image{}, err
	}
	if !p.needsBuildKit() && files == nil {
		p.tenant = tenant
		return s.buildSteps(ctx, p, newReporter(progress))
	}
	if s.builder == nil {
		return innerdock.Image{}, innerdock.Errorf(innerdock.CodeUnsupported, "this server cannot build Dockerfiles")
	}
	ws, err := s.workspace("files")
	if err != nil {
		return innerdock.Image{}, err
	}
	b := bkBuild{store: s, tenant: tenant, plan: p.withoutImages(), ws: ws, say: newReporter(progress)}
	img, err := b.run(ctx, files)
	if err == nil && len(p.images) > 0 {
		img, err = s.addImages(ctx, p, img, b.say)
	}
	if rerr := ws.remove(); err == nil && rerr != nil {
		err = innerdock.Internal(rerr, "removing a temporary directory")
	}
	return img, err
}

// over is the plan of an image with a plan's Docker images, and what it begins with:
// one that BuildKit made.
func (p plan) over(img innerdock.Image) (plan, resolution) {
	return plan{images: p.images}, resolution{Ref: img.Base, Source: img.Source, Digest: img.ID, built: img.ID}
}

// addImages returns a plan's image, which is one that BuildKit made and its Docker images.
func (s *Store) addImages(ctx context.Context, p plan, img innerdock.Image, say reporter) (innerdock.Image, error) {
	if s.runner == nil {
		return innerdock.Image{}, innerdock.Errorf(innerdock.CodeUnsupported, "this server cannot put Docker images into an image; leave docker_images out")
	}
	p, base := p.over(img)
	r, err := s.image(ctx, p, base, say)
	return r.Image, err
}

// needsBuildKit tells definitions that no plain sandbox can build.
func (p plan) needsBuildKit() bool {
	return p.def.Dockerfile != nil || len(p.def.Secrets) > 0 ||
		slices.ContainsFunc(p.def.Steps, func(step innerdock.ImageStep) bool { return step.Copy != nil })
}

// checkDockerfile checks what a definition begins with instead of a base.
func checkDockerfile(def innerdock.ImageDefinition) error {
	d := def.Dockerfile
	switch {
	case def.BaseImage != "" || def.PythonVersion != "":
		return innerdock.Errorf(innerdock.CodeInvalid, "the definition has a dockerfile, which names its base itself; leave out python_version and base_image")
	case strings.TrimSpace(d.Text) == "":
		return innerdock.Errorf(innerdock.CodeInvalid, "the dockerfile is empty; it begins with FROM")
	case len(d.Text) > maxDockerfile || strings.IndexByte(d.Text, 0) >= 0:
		return innerdock.Errorf(innerdock.CodeInvalid, "the dockerfile is larger than %d KiB, or no text", maxDockerfile>>10)
	case d.Target != "" && !stageName.MatchString(d.Target):
		return innerdock.Errorf(innerdock.CodeInvalid, "target %q is no name of a stage", clip(d.Target))
	}
	size := 0
	for k, v := range d.Args {
		size += len(k) + len(v)
		if !shellName.MatchString(k) || strings.IndexByte(v, 0) >= 0 {
			return innerdock.Errorf(innerdock.CodeInvalid, "%q cannot be a build argument; use letters, digits and underscores", clip(k))
		}
	}
	if size > maxArgs {
		return innerdock.Errorf(innerdock.CodeInvalid, "the build arguments are larger than %d KiB; put the data into a file", maxArgs>>10)
	}
	return nil
}

// stageName is a name or a number of a stage.
var stageName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

// bkBuild is a build by BuildKit.
type bkBuild struct {
	store  *Store
	tenant string
	plan   plan
	ws     *workspace
	say    reporter
}

// builtImage is what a build is remembered by. Builds of one tenant alone are:
// what they fetched with their secrets is not for others.
type builtImage struct {
	ID string `json:"id"`
}

func (b *bkBuild) run(ctx context.Context, files io.Reader) (innerdock.Image, error) {
	var archive io.Reader
	if files != nil {
		file, digest, err := b.receive(ctx, files)
		if err != nil {
			return innerdock.Image{}, err
		}
		defer file.Close()
		if named := b.plan.def.Context; named != "" && named != digest {
			return innerdock.Image{}, innerdock.Errorf(innerdock.CodeInvalid, "the files have the digest %s, and not that of context", digest)
		}
		b.plan.def.Context, archive = digest, file
	} else if b.plan.def.Context != "" {
		return innerdock.Image{}, innerdock.Errorf(innerdock.CodeInvalid, "the definition names the context %s, which has to come with it", clip(b.plan.def.Context))
	}
	key, err := b.plan.buildKey(b.tenant)
	if err != nil {
		return innerdock.Image{}, err
	}
	if img, ok := b.store.built(ctx, key); ok && !b.plan.refresh {
		return img, nil
	}
	lock, err := b.store.lock(ctx, "build-"+key, func() { b.say.progress("build", "Another build makes the same image: waiting for it") })
	if err != nil {
		return innerdock.Image{}, err
	}
	defer lock.unlock()
	if img, ok := b.store.built(ctx, key); ok && !b.plan.refresh {
		return img, nil
	}
	if err := b.store.checkRoom(); err != nil {
		return innerdock.Image{}, err
	}
	start := time.Now()
	img, err := b.build(ctx, archive)
	if err != nil {
		b.store.log.Info("dockerfile build failed", "tenant", b.tenant, "seconds", time.Since(start).Seconds(), "code", innerdock.CodeOf(err))
		return innerdock.Image{}, err
	}
	b.store.log.Info("dockerfile built", "tenant", b.tenant, "image", img.ID, "bytes", img.Size, "seconds", time.Since(start).Seconds())
	data, err := json.Marshal(builtImage{img.ID})
	if err != nil {
		return innerdock.Image{}, innerdock.Internal(err, "remembering a build")
	}
	return img, b.store.writeFile(b.store.builtPath(key), data)
}

// receive writes the files to the disk: their digest says whether anything has to
// be built. They are not looked into.
func (b *bkBuild) receive(ctx context.Context, files io.Reader) (*os.File, string, error) {
	file, err := os.OpenFile(b.ws.path("context.tar"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, "", diskError(err, "receiving the files of a build")
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(file, sum), io.LimitReader(ctxio.Reader(ctx, files), innerdock.MaxContext+1))
	if err == nil && n > innerdock.MaxContext {
		err = innerdock.Errorf(innerdock.CodeTooLarge, "the files of the build are larger than %d GiB; name what it does not need in .dockerignore", innerdock.MaxContext>>30)
	}
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		_ = file.Close()
		return nil, "", diskError(err, "receiving the files of a build")
	}
	return file, "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
}

// build has the builder work, and takes its image.
func (b *bkBuild) build(ctx context.Context, archive io.Reader) (innerdock.Image, error) {
	for _, name := range b.plan.def.Secrets {
		if b.plan.def.Values[name] == "" {
			return innerdock.Image{}, innerdock.Errorf(innerdock.CodeInvalid, "the definition has the secret %s, and the request no value of it; secret_values has them by name", name)
		}
	}
	text := b.plan.dockerfile()
	request := DockerfileBuild{
		Text: builtinFrontend(text), Secrets: b.plan.def.Values, Context: archive, Pull: b.plan.refresh,
		Sandbox: func(ctx context.Context) (string, error) {
			b.say.progress("builder", "Starting a builder")
			img, err := b.store.Build(ctx, builderImage, func(event string, e innerdock.BuildEvent) { b.say.event(event, "builder", e.Message) })
			return img.ID, err
		},
	}
	if d := b.plan.def.Dockerfile; d != nil {
		request.Args = d.Args
		if b.plan.isBase() {
			request.Target = d.Target
		}
	}
	var err error
	if request.Accounts, err = b.plan.accounts.config(); err != nil {
		return innerdock.Image{}, err
	}
	out := &buildOutput{say: b.say, names: map[string]string{}}
	var img innerdock.Image
	err = b.store.builder.BuildDockerfile(ctx, b.tenant, request, out.line, func(archive io.Reader) error {
		b.say.progress("image", "Taking the image over")
		var err error
		img, err = b.store.importFrom(ctx, archive, origin{base: b.plan.baseName(text), source: sourceDockerfile}, b.say)
		return err
	})
	return img, out.failure(ctx, err)
}

// baseName is what people read as the base of the image.
func (p plan) baseName(text string) string {
	if p.base != nil {
		return p.base.Name()
	}
	if m := fromLine.FindAllStringSubmatch(text, -1); m != nil {
		return clip(m[len(m)-1][1])
	}
	return sourceDockerfile
}

// buildKey names what a tenant's build is made of. Secrets' values are no part of it.
func (p plan) buildKey(tenant string) (string, error) {
	inputs := struct {
		Format            int
		Tenant            string
		Text              string
		Target            string            `json:",omitempty"`
		Args              map[string]string `json:",omitempty"`
		Secrets, Accounts []string
		Context           string
	}{Format: format, Tenant: tenant, Text: p.dockerfile(), Secrets: slices.Sorted(slices.Values(p.def.Secrets)), Context: p.def.Context}
	if d := p.def.Dockerfile; d != nil {
		inputs.Target, inputs.Args = d.Target, d.Args
	}
	for _, registry := range slices.Sorted(maps.Keys(p.accounts)) { // who has lost one builds again, and fails
		account := p.accounts[registry]
		inputs.Accounts = append(inputs.Accounts, registry, account.Username, account.Password)
	}
	data, err := json.Marshal(inputs)
	if err != nil {
		return "", innerdock.Internal(err, "hashing the definition")
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

func (s *Store) builtPath(key string) string { return s.dir + "/refs/build-" + key + ".json" }

// built returns the image that a build of this key made, if it is still there.
func (s *Store) built(ctx context.Context, key string) (innerdock.Image, bool) {
	data, err := os.ReadFile(s.builtPath(key))
	var found builtImage
	if err != nil || json.Unmarshal(data, &found) != nil {
		return innerdock.Image{}, false
	}
	img, err := s.Get(ctx, found.ID)
	img.Cached = true
	return img, err == nil
}

var syntaxLine = regexp.MustCompile(`(?i)^#[ \t]*syntax[ \t]*=[ \t]*(?:docker\.io/)?docker/dockerfile:(?:1|1\.[0-7]|latest)[ \t]*\r?$`)

// builtinFrontend has BuildKit read the Dockerfile itself where it asks for the
// frontend that BuildKit has: nothing needs to be pulled for that. Lines keep
// their numbers.
func builtinFrontend(text string) string {
	first, rest, more := strings.Cut(text, "\n")
	if !syntaxLine.MatchString(first) {
		return text
	}
	if !more {
		return "#"
	}
	return "#\n" + rest
}

// buildOutput passes BuildKit's plain progress on, and keeps its end.
type buildOutput struct {
	say   reporter
	names map[string]string // of steps, by their numbers
	last  []string
}

// maxStepNames caps what is kept of a build's steps.
const maxStepNames = 4096

var (
	stepLine = regexp.MustCompile(`^#(\d{1,6}) (.*)$`)
	timed    = regexp.MustCompile(`^\d+\.\d+ `)
)

func (o *buildOutput) line(line string) {
	if len(line) > maxLine {
		line = line[:maxLine]
	}
	line = strings.ToValidUTF8(line, "\uFFFD")
	if strings.TrimSpace(line) == "" {
		return
	}
	if o.last = append(o.last, line); len(o.last) > maxBuildLines {
		o.last = o.last[1:]
	}
	m := stepLine.FindStringSubmatch(line)
	if m == nil {
		o.say.log("build", line)
		return
	}
	name, known := o.names[m[1]]
	switch {
	case !known && len(o.names) < maxStepNames:
		o.names[m[1]] = clip(m[2])
		o.say.progress(clip(m[2]), "%s", m[2])
	case timed.MatchString(m[2]):
		_, text, _ := strings.Cut(m[2], " ")
		o.say.log(name, text)
	default:
		o.say.progress(name, "%s", m[2])
	}
}

// failure turns the builder's error into one for people: with the step's command,
// the end of its output and its line, as BuildKit tells them.
func (o *buildOutput) failure(ctx context.Context, err error) error {
	var failed *DockerfileError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &failed):
		tail := o.last
		for i, line := range tail { // BuildKit sums up between such lines
			if line == "------" {
				tail = tail[i+1:]
				break
			}
		}
		return innerdock.Errorf(innerdock.CodeImageBuildFailed, "the Dockerfile could not be built; mend it and build again. BuildKit says:\n%s", strings.Join(tail, "\n"))
	}
	var coded *innerdock.Error
	if errors.As(err, &coded) {
		return err
	}
	return diskError(err, "building a Dockerfile")
}
