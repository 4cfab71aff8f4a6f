package image

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image/dockerinstall"
	"github.com/innerdock/innerdock/pkg/image/recipe"
)

// defaultPython is what a definition without a base gets, and what "python3" means.
const defaultPython = "3.11"

// format is part of every ID: raise it when the same definition shall give
// another file system than before.
const format = 2

// Caps of a definition.
const (
	maxSteps    = 256
	maxStepSize = 60 << 10 // bytes of a command, or of all packages of a step: BuildKit reads no line of 64 KiB
	maxEnvSize  = 60 << 10
	maxPath     = 4096
	maxSecrets  = 1 << 20

	maxDockerImages = 64
)

// plan is a definition that was checked and spelled out.
type plan struct {
	base       name.Reference
	steps      []Step
	images     []string // that its Docker has
	env        map[string]string
	workingDir string // "": the base's
	user       string // "": the base's
	micromamba bool   // its programs come before the base's
	tenant     string // whose pip cache the steps have; "": nobody's

	def innerdock.ImageDefinition

	refresh  bool                // ask again what the base's tag stands for
	auth     authn.Authenticator // for the base's registry; nil: what the server knows
	accounts accounts            // of auth, or of a Dockerfile's bases
}

func newPlan(def innerdock.ImageDefinition) (plan, error) {
	base, err := baseReference(def)
	if err != nil {
		return plan{}, err
	}
	if err := checkEnv(def.Env); err != nil {
		return plan{}, err
	}
	if len(def.Steps) > maxSteps {
		return plan{}, innerdock.Errorf(innerdock.CodeInvalid, "an image may have %d steps; join some of the %d commands with &&", maxSteps, len(def.Steps))
	}
	p := plan{base: base, env: maps.Clone(def.Env), user: def.User, refresh: def.Refresh, auth: authenticator(def.Credentials), def: def}
	if p.accounts, err = accountsOf(def, base); err != nil {
		return plan{}, err
	}
	if p.workingDir, err = checkDir(def.WorkingDir); err != nil {
		return plan{}, err
	}
	if def.User != "" && !userName.MatchString(def.User) {
		return plan{}, innerdock.Errorf(innerdock.CodeInvalid, "user %q is not a user; write a name or a number, such as app, 1000 or app:staff", clip(def.User))
	}
	if p.images, err = checkDockerImages(def.DockerImages); err != nil {
		return plan{}, err
	}
	if err := checkSecrets(def); err != nil {
		return plan{}, err
	}
	for i, step := range def.Steps {
		s, err := spellOut(step, i, len(def.Steps))
		if err != nil {
			return plan{}, err
		}
		p.steps = append(p.steps, s)
		p.micromamba = p.micromamba || step.Micromamba != nil
	}
	return p, nil
}

// checkSecrets wants a name for each value, and no more.
func checkSecrets(def innerdock.ImageDefinition) error {
	size := 0
	for i, name := range def.Secrets {
		size += len(name) + len(def.Values[name])
		switch {
		case !shellName.MatchString(name) || slices.Contains(def.Secrets[:i], name):
			return innerdock.Errorf(innerdock.CodeInvalid, "secret %q: each has a name of its own, of letters, digits and underscores", clip(name))
		case strings.IndexByte(def.Values[name], 0) >= 0:
			return innerdock.Errorf(innerdock.CodeInvalid, "the secret %s holds a zero byte; encode it", name)
		}
	}
	for name := range def.Values {
		if !slices.Contains(def.Secrets, name) {
			return innerdock.Errorf(innerdock.CodeInvalid, "secret_values has %q, which is not one of the secrets", clip(name))
		}
	}
	if size > maxSecrets {
		return innerdock.Errorf(innerdock.CodeInvalid, "the secrets are larger than %d KiB", maxSecrets>>10)
	}
	return nil
}

// checkDockerImages returns references as Docker takes them, each once.
func checkDockerImages(refs []string) (images []string, err error) {
	if len(refs) > maxDockerImages {
		return nil, innerdock.Errorf(innerdock.CodeInvalid, "docker_images has %d images; at most %d come with one image", len(refs), maxDockerImages)
	}
	for _, ref := range refs {
		if _, err := name.ParseReference(ref); err != nil || strings.HasPrefix(ref, "-") {
			return nil, innerdock.Errorf(innerdock.CodeInvalid, "docker_images: %q is not an image reference; write it like redis:7 or ghcr.io/owner/name:tag", clip(ref))
		}
		if !slices.Contains(images, ref) {
			images = append(images, ref)
		}
	}
	return images, nil
}

// shellName is what a shell takes as a variable.
var shellName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// userName is a name or number of a user and, if need be, of a group.
var userName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$`)

// checkDir returns a working directory without what means nothing in it.
func checkDir(dir string) (string, error) {
	switch {
	case dir == "":
		return "", nil
	case !path.IsAbs(dir) || len(dir) > maxPath || strings.ContainsFunc(dir, unicode.IsControl):
		return "", innerdock.Errorf(innerdock.CodeInvalid, "working_dir %q is not an absolute path; write it like /app", clip(dir))
	case path.Clean(dir) == "/":
		return "", innerdock.Errorf(innerdock.CodeInvalid, "working_dir / is what images have that say nothing; name a directory below it, or leave it out for %s", innerdock.WorkspaceDir)
	}
	return path.Clean(dir), nil
}

// authenticator is an account as registries are shown it; nil without one.
func authenticator(c *innerdock.RegistryCredentials) authn.Authenticator {
	if c == nil || c.Username == "" && c.Password == "" {
		return nil
	}
	return &authn.Basic{Username: c.Username, Password: c.Password}
}

// alone is the plan of the base without steps.
func (p plan) alone() plan { return plan{base: p.base} }

// first is the plan of the same image with its first n steps alone.
func (p plan) first(n int) plan {
	p.steps, p.images = p.steps[:n], nil
	return p
}

// withoutImages is the plan of the same image without Docker images.
func (p plan) withoutImages() plan {
	p.images = nil
	return p
}

func (p plan) isBase() bool {
	return len(p.steps)+len(p.images) == 0 && len(p.env) == 0 && p.workingDir == "" && p.user == ""
}

// paths is a base's environment with the places of what the steps install. An
// image of the first steps may have them already.
func (p plan) paths(env map[string]string) map[string]string {
	const programs = recipe.Prefix + "/bin:"
	if !p.micromamba {
		return env
	}
	path := strings.TrimPrefix(cmp.Or(env["PATH"], stepEnv["PATH"]), programs)
	return merge(env, map[string]string{"PATH": programs + path, "MAMBA_ROOT_PREFIX": recipe.Prefix})
}

// stepsUser is whose processes are after the steps, which are root's, on a base of
// user's: the same as when a Dockerfile has them.
func (p plan) stepsUser(user string) string {
	if len(p.steps) > 0 && user != "" {
		return "root"
	}
	return user
}

// id is the image's ID: a hash of all that its content follows from.
func (p plan) id(base resolution) (string, error) {
	inputs := struct {
		Format     int
		Base       string
		Steps      [][]string
		Env        map[string]string
		WorkingDir string   `json:",omitempty"`
		User       string   `json:",omitempty"`
		Images     []string `json:",omitempty"`
		Tenant     string   `json:",omitempty"`
	}{format, base.identity(), nil, p.env, p.workingDir, p.user, p.images, ""}
	for _, s := range p.steps {
		inputs.Steps = append(inputs.Steps, s.Args)
		if s.isPip() { // what it installs, an earlier build of the tenant may have put into its cache
			inputs.Tenant = p.tenant
		}
	}
	data, err := json.Marshal(inputs)
	if err != nil {
		return "", innerdock.Internal(err, "hashing the definition")
	}
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

var pythonVersion = regexp.MustCompile(`^(?:python)?(\d+(?:\.\d+){0,2})?$`)

// baseReference is the image reference that a definition starts from; nil for a
// Dockerfile.
func baseReference(def innerdock.ImageDefinition) (name.Reference, error) {
	if def.Dockerfile != nil {
		return nil, checkDockerfile(def)
	}
	if def.BaseImage != "" && def.PythonVersion != "" {
		return nil, innerdock.Errorf(innerdock.CodeInvalid, "the definition has both python_version and base_image; leave one of them out")
	}
	if def.BaseImage != "" {
		ref, err := name.ParseReference(def.BaseImage)
		if err != nil {
			return nil, innerdock.Errorf(innerdock.CodeInvalid, "base_image %q is not an image reference; write it like debian:bookworm or ghcr.io/owner/name:tag", clip(def.BaseImage))
		}
		return ref, nil
	}
	m := pythonVersion.FindStringSubmatch(def.PythonVersion)
	if m == nil {
		return nil, innerdock.Errorf(innerdock.CodeInvalid, "python_version %q is not a version; write it like python3.11", clip(def.PythonVersion))
	}
	version := m[1]
	if version == "" || version == "3" {
		version = defaultPython
	}
	return name.ParseReference("docker.io/library/python:" + version)
}

func spellOut(step innerdock.ImageStep, i, n int) (Step, error) {
	at := fmt.Sprintf(" %d/%d", i+1, n)
	if err := checkStep(step, at); err != nil {
		return Step{}, err
	}
	switch {
	case step.Command != "":
		return Step{Name: "command" + at, Args: shell(step.Command)}, nil
	case step.PythonPackages != nil:
		args, err := pip(step.PythonPackages, at)
		return Step{Name: "python packages" + at, Args: args}, err
	case step.PythonVersion != "":
		version := stepPython.FindStringSubmatch(step.PythonVersion)
		if version == nil {
			return Step{}, innerdock.Errorf(innerdock.CodeInvalid, "step%s: python_version %q is not a version; write it like python3.12", at, clip(step.PythonVersion))
		}
		return Step{Name: "python" + at, Args: shell(recipe.Python(version[1]))}, nil
	case step.Micromamba != nil:
		if err := checkMicromamba(*step.Micromamba, at); err != nil {
			return Step{}, err
		}
		return Step{Name: "micromamba" + at, Args: shell(recipe.Micromamba(step.Micromamba.Packages, step.Micromamba.Channels))}, nil
	case step.Copy != nil:
		return Step{Name: "copy" + at, Args: []string{"copy", step.Copy.Source, step.Copy.Target}}, checkCopy(*step.Copy, at)
	default:
		source, err := dockerSource(step.Docker.Source)
		return Step{Name: "docker" + at, Args: shell(dockerinstall.Script(source))}, err
	}
}

func shell(script string) []string { return []string{"/bin/sh", "-c", script} }

// checkStep refuses a step that is not one thing, or too much of it.
func checkStep(step innerdock.ImageStep, at string) error {
	kinds, size := 0, len(step.Command)
	for _, is := range []bool{step.Command != "", step.PythonPackages != nil, step.PythonVersion != "", step.Micromamba != nil, step.Docker != nil, step.Copy != nil} {
		if is {
			kinds++
		}
	}
	words := step.PythonPackages
	if m := step.Micromamba; m != nil {
		words = slices.Concat(words, m.Packages, m.Channels)
	}
	for _, w := range words {
		size += len(w)
	}
	switch {
	case size > maxStepSize:
		return innerdock.Errorf(innerdock.CodeInvalid, "step%s is longer than %d KiB; put it into a file and run that", at, maxStepSize>>10)
	case strings.IndexByte(step.Command, 0) >= 0:
		return innerdock.Errorf(innerdock.CodeInvalid, "step%s holds a zero byte; remove it", at)
	case kinds != 1 || step.PythonPackages != nil && len(step.PythonPackages) == 0:
		return innerdock.Errorf(innerdock.CodeInvalid, "step%s must have exactly one of command, python_packages, python_version, micromamba, docker and copy", at)
	}
	return nil
}

// stepPython is a version that distributions have a package of.
var stepPython = regexp.MustCompile(`^(?:python)?(3\.\d{1,3})$`)

func checkCopy(c innerdock.ImageCopy, at string) error {
	source, target := path.Clean("/"+c.Source), path.Clean(c.Target)
	switch {
	case source == "/" || strings.TrimSuffix(c.Source, "/") != source[1:] || len(source) > maxPath || strings.ContainsAny(c.Source, "*?[\\") || strings.ContainsFunc(c.Source, unicode.IsControl):
		return innerdock.Errorf(innerdock.CodeInvalid, "step%s: %q is no path in the context; write it like src/main.py", at, clip(c.Source))
	case !path.IsAbs(target) || len(target) > maxPath || strings.Contains(c.Target, "/..") || strings.ContainsFunc(c.Target, unicode.IsControl):
		return innerdock.Errorf(innerdock.CodeInvalid, "step%s: %q is no absolute path in the image; write it like /app/", at, clip(c.Target))
	}
	return nil
}

func checkMicromamba(m innerdock.MicromambaInstall, at string) error {
	for what, words := range map[string][]string{"package": m.Packages, "channel": m.Channels} {
		for _, w := range words {
			if strings.TrimSpace(w) == "" || strings.HasPrefix(w, "-") || strings.ContainsFunc(w, unicode.IsControl) {
				return innerdock.Errorf(innerdock.CodeInvalid, "step%s: %q is no %s of micromamba; write it like numpy, or conda-forge", at, clip(w), what)
			}
		}
	}
	return nil
}

// pipCommand installs packages. The last option is for where there is no cache.
var pipCommand = []string{"python3", "-m", "pip", "install", "--root-user-action=ignore", "--disable-pip-version-check", "--no-cache-dir"}

func (s Step) isPip() bool {
	return len(s.Args) > len(pipCommand) && slices.Equal(s.Args[:len(pipCommand)], pipCommand)
}

// WithCache returns the step with pip's cache in a directory of its sandbox that
// is no part of what it changes; false for a step that is not pip's.
func (s Step) WithCache(dir string) (Step, bool) {
	if !s.isPip() {
		return s, false
	}
	end := len(pipCommand) - 1
	s.Args = slices.Concat(pipCommand[:end], []string{"--cache-dir", dir}, s.Args[end+1:])
	return s, true
}

// pip is the command that installs packages. Options, such as
// "--extra-index-url URL", may stand among them.
func pip(packages []string, at string) ([]string, error) {
	args := slices.Clone(pipCommand)
	for _, p := range packages {
		p = strings.TrimSpace(p)
		switch {
		case p == "" || strings.ContainsAny(p, "\x00\r\n"):
			return nil, innerdock.Errorf(innerdock.CodeInvalid, "step%s: %q is no Python package; write it like requests==2.32.3", at, clip(p))
		case strings.HasPrefix(p, "-"):
			args = append(args, strings.Fields(p)...)
		default:
			args = append(args, p)
		}
	}
	return args, nil
}

func dockerSource(s innerdock.DockerSource) (innerdock.DockerSource, error) {
	switch s {
	case "":
		return innerdock.DockerSourceAuto, nil
	case innerdock.DockerSourceAuto, innerdock.DockerSourceCE, innerdock.DockerSourceDistro:
		return s, nil
	}
	return "", innerdock.Errorf(innerdock.CodeInvalid, "docker source %q is not known; use auto, docker-ce or distro", clip(string(s)))
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

func checkEnv(env map[string]string) error {
	size := 0
	for k, v := range env {
		size += len(k) + len(v)
		if !envName.MatchString(k) {
			return innerdock.Errorf(innerdock.CodeInvalid, "%q cannot be an environment variable; use letters, digits and underscores", clip(k))
		}
		if strings.ContainsAny(v, "\x00\r\n") {
			return innerdock.Errorf(innerdock.CodeInvalid, "the environment variable %s holds a line break or a zero byte, which no Dockerfile can say; put it into a file, or set it for a sandbox", clip(k))
		}
	}
	if size > maxEnvSize {
		return innerdock.Errorf(innerdock.CodeInvalid, "env is larger than %d KiB; put the data into a file", maxEnvSize>>10)
	}
	return nil
}

// clip shortens what a user gave, for a message.
func clip(s string) string {
	if len(s) > 120 {
		return s[:120] + "…"
	}
	return s
}
