package innerdock

import (
	"slices"
	"time"
)

// SandboxState is where a sandbox is in its life:
// creating → running → terminating → terminated, or failed with a reason.
type SandboxState string

// The states of a sandbox.
const (
	StateCreating    SandboxState = "creating"
	StateRunning     SandboxState = "running"
	StateTerminating SandboxState = "terminating"
	StateTerminated  SandboxState = "terminated"
	StateFailed      SandboxState = "failed"
)

var transitions = map[SandboxState][]SandboxState{
	StateCreating:    {StateRunning, StateTerminating, StateFailed},
	StateRunning:     {StateTerminating, StateFailed},
	StateTerminating: {StateTerminated, StateFailed},
}

// To reports whether a sandbox may move from s to next; staying is always legal.
func (s SandboxState) To(next SandboxState) error {
	if s == next || slices.Contains(transitions[s], next) {
		return nil
	}
	return Errorf(CodeConflict, "the sandbox is %s and cannot become %s", s, next)
}

// Ended reports whether the sandbox is over: it holds no resource of the host.
func (s SandboxState) Ended() bool { return s == StateTerminated || s == StateFailed }

// WorkspaceDir exists in every sandbox and is the default working directory.
const WorkspaceDir = "/workspace"

// SandboxSpec asks for a sandbox.
type SandboxSpec struct {
	Name    string            `json:"name,omitempty" doc:"Unique among the live sandboxes of a tenant: lower-case letters, digits and dashes, 63 at most."`
	Image   string            `json:"image" doc:"ID of a built image (see POST /v1/images)." minLength:"1"`
	CPU     float64           `json:"cpu,omitempty" doc:"Cores; 0.1 to the machine's. Default 1."`
	Memory  string            `json:"memory,omitempty" doc:"A quantity such as 512Mi or 4Gi. Default 1Gi."`
	Disk    string            `json:"disk,omitempty" doc:"What the root's changes, /tmp and Docker's data may each take on disk, as a quantity. Default 10Gi."`
	GPU     string            `json:"gpu,omitempty" doc:"Refused: this server offers no GPU."`
	Env     map[string]string `json:"env,omitempty" doc:"Environment of every process."`
	Docker  DockerSpec        `json:"docker,omitempty"`
	Network NetworkSpec       `json:"network,omitempty"`
}

// DockerSpec says whether and how dockerd runs in the sandbox.
type DockerSpec struct {
	Enabled      bool          `json:"enabled,omitempty" doc:"Start dockerd. The image must hold Docker: Image().with_docker()."`
	Profile      DockerProfile `json:"profile,omitempty" enum:"full,minimal" doc:"full (default): overlay2, bridge networks, published ports. minimal: vfs and host networking only."`
	ReadyTimeout float64       `json:"ready_timeout,omitempty" doc:"Seconds that dockerd has to become ready. Default 30."`
}

// DockerProfile chooses dockerd's flags.
type DockerProfile string

// The profiles of dockerd.
const (
	ProfileFull    DockerProfile = "full"
	ProfileMinimal DockerProfile = "minimal"
)

// NetworkSpec widens or closes what a sandbox may reach. By default that is
// the public internet, and never another sandbox, the host or a private range.
type NetworkSpec struct {
	Block bool     `json:"block,omitempty" doc:"Nothing is reachable but the gateway's DNS and registry cache."`
	Allow []string `json:"allow,omitempty" doc:"CIDRs that are reachable although they are private."`
}

// Sandbox is a sandbox as the API shows it.
type Sandbox struct {
	ID        string             `json:"id"`
	Name      string             `json:"name,omitempty"`
	State     SandboxState       `json:"state" enum:"creating,running,terminating,terminated,failed"`
	Reason    string             `json:"reason,omitempty" doc:"Why it failed or ended, and the next step."`
	Image     string             `json:"image"`
	CPU       float64            `json:"cpu" doc:"Cores."`
	Memory    int64              `json:"memory" doc:"Bytes."`
	Disk      int64              `json:"disk" doc:"Bytes."`
	Address   string             `json:"address,omitempty" doc:"IPv4 address on the sandbox network."`
	Docker    DockerStatus       `json:"docker"`
	CreatedAt time.Time          `json:"created_at"`
	EndedAt   *time.Time         `json:"ended_at,omitempty"`
	Timings   map[string]float64 `json:"timings,omitempty" doc:"Seconds that each phase of the start took."`
}

// DockerState is where the sandbox's dockerd is.
type DockerState string

// The states of Docker in a sandbox.
const (
	DockerDisabled   DockerState = "disabled"
	DockerStarting   DockerState = "starting"
	DockerReady      DockerState = "ready"
	DockerRestarting DockerState = "restarting"
	DockerFailed     DockerState = "failed"
)

// DockerStatus is the state of Docker in a sandbox.
type DockerStatus struct {
	State   DockerState   `json:"state" enum:"disabled,starting,ready,restarting,failed"`
	Code    Code          `json:"code,omitempty" doc:"Error code, when failed."`
	Reason  string        `json:"reason,omitempty" doc:"Why it failed and the next step; or what it waits for."`
	Profile DockerProfile `json:"profile,omitempty"`
	Version string        `json:"version,omitempty" doc:"Version of dockerd, once ready."`
	Seconds float64       `json:"seconds,omitempty" doc:"From the start of the sandbox to ready."`
}
