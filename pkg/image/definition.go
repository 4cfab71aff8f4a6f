package image

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image/dockerinstall"
)

// defaultPython is what a definition without a base gets, and what "python3" means.
const defaultPython = "3.11"

// format is part of every ID: raise it when the same definition shall give
// another file system than before.
const format = 1

// Caps of a definition.
const (
	maxSteps    = 256
	maxStepSize = 64 << 10 // bytes of a command, or of all packages of a step
	maxEnvSize  = 64 << 10
)

// plan is a definition that was checked and spelled out.
type plan struct {
	base  name.Reference
	steps []Step
	env   map[string]string
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
	p := plan{base: base, env: maps.Clone(def.Env)}
	for i, step := range def.Steps {
		s, err := spellOut(step, i, len(def.Steps))
		if err != nil {
			return plan{}, err
		}
		p.steps = append(p.steps, s)
	}
	return p, nil
}

// alone is the plan of the base without steps.
func (p plan) alone() plan { return plan{base: p.base} }

func (p plan) isBase() bool { return len(p.steps) == 0 && len(p.env) == 0 }

// id is the image's ID: a hash of all that its content follows from.
func (p plan) id(base resolution) (string, error) {
	inputs := struct {
		Format int
		Base   string
		Steps  [][]string
		Env    map[string]string
	}{format, base.identity(), nil, p.env}
	for _, s := range p.steps {
		inputs.Steps = append(inputs.Steps, s.Args)
	}
	data, err := json.Marshal(inputs)
	if err != nil {
		return "", innerdock.Internal(err, "hashing the definition")
	}
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

var pythonVersion = regexp.MustCompile(`^(?:python)?(\d+(?:\.\d+){0,2})?$`)

// baseReference is the image reference that a definition starts from.
func baseReference(def innerdock.ImageDefinition) (name.Reference, error) {
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
	size := len(step.Command)
	for _, p := range step.PythonPackages {
		size += len(p)
	}
	switch {
	case size > maxStepSize:
		return Step{}, innerdock.Errorf(innerdock.CodeInvalid, "step%s is longer than %d KiB; put it into a file and run that", at, maxStepSize>>10)
	case strings.IndexByte(step.Command, 0) >= 0:
		return Step{}, innerdock.Errorf(innerdock.CodeInvalid, "step%s holds a zero byte; remove it", at)
	case step.Command != "" && step.PythonPackages == nil && step.Docker == nil:
		return Step{Name: "command" + at, Args: []string{"/bin/sh", "-c", step.Command}}, nil
	case step.Command == "" && len(step.PythonPackages) > 0 && step.Docker == nil:
		args, err := pip(step.PythonPackages, at)
		return Step{Name: "python packages" + at, Args: args}, err
	case step.Command == "" && step.PythonPackages == nil && step.Docker != nil:
		source, err := dockerSource(step.Docker.Source)
		if err != nil {
			return Step{}, err
		}
		return Step{Name: "docker" + at, Args: []string{"/bin/sh", "-c", dockerinstall.Script(source)}}, nil
	}
	return Step{}, innerdock.Errorf(innerdock.CodeInvalid, "step%s must have exactly one of command, python_packages and docker", at)
}

// pip is the command that installs packages. Options, such as
// "--extra-index-url URL", may stand among them.
func pip(packages []string, at string) ([]string, error) {
	args := []string{"python3", "-m", "pip", "install", "--no-cache-dir", "--root-user-action=ignore", "--disable-pip-version-check"}
	for _, p := range packages {
		p = strings.TrimSpace(p)
		switch {
		case p == "" || strings.IndexByte(p, 0) >= 0:
			return nil, innerdock.Errorf(innerdock.CodeInvalid, "step%s has an empty Python package; write it like requests==2.32.3", at)
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
		if !envName.MatchString(k) || strings.IndexByte(v, 0) >= 0 {
			return innerdock.Errorf(innerdock.CodeInvalid, "%q cannot be an environment variable; use letters, digits and underscores", clip(k))
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
