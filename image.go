package innerdock

import "time"

// ImageDefinition says how to make an image: a base and steps on it. Its
// canonical JSON, with the base's digest, is what an image's ID is made of.
type ImageDefinition struct {
	PythonVersion string            `json:"python_version,omitempty" doc:"Such as python3.11: the official Python image, or the same made from Debian packages."`
	BaseImage     string            `json:"base_image,omitempty" doc:"An image reference; instead of python_version."`
	Steps         []ImageStep       `json:"steps,omitempty"`
	Env           map[string]string `json:"env,omitempty" doc:"Environment of every process of sandboxes made from it."`
}

// ImageStep is one step of a definition: exactly one of its fields is set.
type ImageStep struct {
	Command        string         `json:"command,omitempty" doc:"A line for /bin/sh, run as root."`
	PythonPackages []string       `json:"python_packages,omitempty" doc:"Requirements for pip."`
	Docker         *DockerInstall `json:"docker,omitempty"`
}

// DockerInstall installs Docker Engine, the CLI and the Compose and Buildx plugins.
type DockerInstall struct {
	Source DockerSource `json:"source,omitempty" enum:"auto,docker-ce,distro" doc:"auto (default): Docker's own repository if it can be reached, else the distribution's packages."`
}

// DockerSource is where Docker is installed from.
type DockerSource string

// The sources of Docker.
const (
	DockerSourceAuto   DockerSource = "auto"
	DockerSourceCE     DockerSource = "docker-ce"
	DockerSourceDistro DockerSource = "distro"
)

// Image is an image in the local store, ready to be a sandbox's root.
type Image struct {
	ID         string            `json:"id" doc:"sha256:… of the definition and its base."`
	Digest     string            `json:"digest" doc:"sha256:… of the EROFS file."`
	Base       string            `json:"base" doc:"The base's reference, or the Debian suite."`
	Source     string            `json:"source" doc:"Where the base came from: registry or debian."`
	Size       int64             `json:"size" doc:"Bytes of the EROFS file."`
	Env        map[string]string `json:"env,omitempty"`
	Entrypoint []string          `json:"entrypoint,omitempty"`
	Cmd        []string          `json:"cmd,omitempty"`
	WorkingDir string            `json:"working_dir,omitempty"`
	CreatedAt  time.Time         `json:"created_at"`
	Cached     bool              `json:"cached" doc:"True when this request made nothing: it was there."`
}

// BuildEvent is the data of one server-sent event of an image build, named
// progress, log, image (the last one on success) or error (on failure).
type BuildEvent struct {
	Step    string `json:"step,omitempty" doc:"The step it belongs to, such as pull, base, docker or command 2/3."`
	Message string `json:"message,omitempty" doc:"A line for people."`
	Image   *Image `json:"image,omitempty"`
	Error   *Error `json:"error,omitempty"`
}
