package innerdock

import "time"

// ImageDefinition says how to make an image: a base and steps on it. Its
// canonical JSON, with the base's digest, is what an image's ID is made of.
type ImageDefinition struct {
	PythonVersion string            `json:"python_version,omitempty" doc:"Such as python3.11: the official Python image, or the same made from Debian packages."`
	BaseImage     string            `json:"base_image,omitempty" doc:"An image reference; instead of python_version."`
	Dockerfile    *ImageDockerfile  `json:"dockerfile,omitempty"`
	Steps         []ImageStep       `json:"steps,omitempty"`
	DockerImages  []string          `json:"docker_images,omitempty" doc:"References of images that the Docker of its sandboxes has from the start. They are pulled when the image is built, and shared by all its sandboxes."`
	Env           map[string]string `json:"env,omitempty" doc:"Environment of every process of sandboxes made from it."`
	WorkingDir    string            `json:"working_dir,omitempty" doc:"Where processes of sandboxes begin: absolute, and made if it is not there. Default: the base's, else /workspace."`
	User          string            `json:"user,omitempty" doc:"Whom processes of sandboxes run as: a name or number, and :GROUP if need be. Default: root, or the base's if there are no steps."`
	Secrets       []string          `json:"secrets,omitempty" doc:"Names of secrets that the steps have as environment variables, and the image does not keep."`

	// Context is the digest of the files that COPY takes. They come with a build,
	// as a tar archive; a build that has them needs not name it.
	Context string `json:"context,omitempty" doc:"sha256:… of the archive of files that copy steps and a Dockerfile's COPY take from."`

	// These are no part of what the image is.
	Refresh     bool                           `json:"refresh,omitempty" doc:"Ask the registry again what the base's tag stands for."`
	Credentials *RegistryCredentials           `json:"credentials,omitempty" doc:"At the registry of base_image; at that of a dockerfile's bases, Docker Hub only if there is no other."`
	Registries  map[string]RegistryCredentials `json:"registry_credentials,omitempty" doc:"At the registries of a dockerfile's bases, by names such as registry.example.com or docker.io."`
	Values      SecretValues                   `json:"secret_values,omitempty" doc:"Of the secrets, by name. They are not kept."`
}

// MaxContext is how large the archive of a build's files may be, in bytes.
const MaxContext = 4 << 30

// ImageDockerfile is what a definition begins with instead of a base. Its steps, if it
// has any, go on from there. RUN --mount=type=secret,id=NAME has the secret NAME.
type ImageDockerfile struct {
	Text   string            `json:"text" doc:"In the syntax of BuildKit's own frontend."`
	Target string            `json:"target,omitempty" doc:"The stage that is the image. Default: the last."`
	Args   map[string]string `json:"args,omitempty" doc:"Values of ARG. They may be seen in the image: secrets go elsewhere."`
}

// SecretValues are those of an image's secrets.
type SecretValues map[string]string

// String hides them.
func (SecretValues) String() string { return "[secrets]" }

// GoString hides them.
func (SecretValues) GoString() string { return "[secrets]" }

// RegistryCredentials are an account at a registry, for the images that they come
// with. They are not kept: whoever wants the image again shows them again.
type RegistryCredentials struct {
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty" writeOnly:"true" doc:"Or an access token."`
}

// String hides the password.
func (RegistryCredentials) String() string { return "[credentials]" }

// GoString hides the password.
func (RegistryCredentials) GoString() string { return "[credentials]" }

// ImageStep is one step of a definition: exactly one of its fields is set.
type ImageStep struct {
	Command        string             `json:"command,omitempty" doc:"Lines for /bin/sh, run as root."`
	PythonPackages []string           `json:"python_packages,omitempty" doc:"Requirements for pip."`
	PythonVersion  string             `json:"python_version,omitempty" doc:"Such as python3.12: Python from the distribution's packages, as python3."`
	Micromamba     *MicromambaInstall `json:"micromamba,omitempty"`
	Docker         *DockerInstall     `json:"docker,omitempty"`
	Copy           *ImageCopy         `json:"copy,omitempty"`
}

// ImageCopy copies a file, or the content of a directory, of the build's context.
type ImageCopy struct {
	Source string `json:"source" doc:"In the context."`
	Target string `json:"target" doc:"In the image: absolute. One that ends in / is a directory."`
}

// MicromambaInstall installs micromamba, and packages of conda channels with it.
// Their programs come before those of the base.
type MicromambaInstall struct {
	Packages []string `json:"packages,omitempty" doc:"Such as numpy or python=3.12."`
	Channels []string `json:"channels,omitempty" doc:"Where they come from, best first. Default conda-forge."`
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
	Source     string            `json:"source" doc:"Where it came from: registry, debian, archive or sandbox."`
	Size       int64             `json:"size" doc:"Bytes of the EROFS file."`
	Env        map[string]string `json:"env,omitempty"`
	Entrypoint []string          `json:"entrypoint,omitempty"`
	Cmd        []string          `json:"cmd,omitempty"`
	WorkingDir string            `json:"working_dir,omitempty" doc:"Where processes of its sandboxes begin, unless it is /: then that is /workspace."`
	User       string            `json:"user,omitempty" doc:"Whom processes of its sandboxes run as; root if empty."`
	CreatedAt  time.Time         `json:"created_at"`
	UsedAt     time.Time         `json:"used_at" doc:"When a sandbox was last made from it, or it was asked for."`
	Cached     bool              `json:"cached" doc:"True when this request made nothing: it was there."`
}

// ImageLayer is one line of an image's history.
type ImageLayer struct {
	CreatedBy string    `json:"created_by,omitempty"`
	CreatedAt time.Time `json:"created_at,omitzero"`
	Comment   string    `json:"comment,omitempty"`
	Digest    string    `json:"digest,omitempty" doc:"Of the layer; empty if it changed no files."`
	Size      int64     `json:"size" doc:"Bytes of the layer, compressed."`
}

// ImagePush says where an image is pushed to.
type ImagePush struct {
	Reference   string               `json:"reference" doc:"Such as registry.example.com/team/app:1."`
	Credentials *RegistryCredentials `json:"credentials,omitempty"`
}

// ImagePrune says which images are removed. What sandboxes use is kept, and what
// was used in the last minutes.
type ImagePrune struct {
	UnusedFor float64 `json:"unused_for,omitempty" minimum:"0" doc:"Seconds: what was not used for longer goes. Default 0."`
	Keep      int64   `json:"keep,omitempty" minimum:"0" doc:"Bytes that may stay: the least recently used go first. Default 0."`
	DryRun    bool    `json:"dry_run,omitempty" doc:"Only say what would be removed."`
}

// ImagesPruned says which images were removed.
type ImagesPruned struct {
	Images []Image `json:"images" nullable:"false"`
	Freed  int64   `json:"freed" doc:"Bytes on the disk, layers included."`
}

// BuildEvent is the data of one server-sent event of an image build, named
// progress, log, image (the last one on success) or error (on failure).
type BuildEvent struct {
	Step    string `json:"step,omitempty" doc:"The step it belongs to, such as pull, base, docker or command 2/3."`
	Message string `json:"message,omitempty" doc:"A line for people."`
	Image   *Image `json:"image,omitempty"`
	Error   *Error `json:"error,omitempty"`
}
