package innerdock

import (
	"slices"
	"time"
)

// SandboxState is where a sandbox is in its life:
// creating → running → terminating → terminated, or failed with a reason. One
// that runs may be paused, and run again, in between.
type SandboxState string

// The states of a sandbox.
const (
	StateCreating    SandboxState = "creating"
	StateRunning     SandboxState = "running"
	StatePaused      SandboxState = "paused"
	StateTerminating SandboxState = "terminating"
	StateTerminated  SandboxState = "terminated"
	StateFailed      SandboxState = "failed"
)

var transitions = map[SandboxState][]SandboxState{
	StateCreating:    {StateRunning, StateTerminating, StateFailed},
	StateRunning:     {StatePaused, StateTerminating, StateFailed},
	StatePaused:      {StateRunning, StateTerminating, StateFailed},
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
	Name     string            `json:"name,omitempty" doc:"Unique among the live sandboxes of a tenant: lower-case letters, digits and dashes, 63 at most."`
	Image    string            `json:"image,omitempty" doc:"ID of a built image (see POST /v1/images)."`
	Snapshot string            `json:"snapshot,omitempty" doc:"In place of an image: ID of a snapshot to go on from. Image, disk and Docker are the snapshot's; what else is left out is as well."`
	CPU      float64           `json:"cpu,omitempty" doc:"Cores; 0.1 to the machine's. Default 1."`
	Memory   string            `json:"memory,omitempty" doc:"A quantity such as 512Mi or 4Gi. Default 1Gi."`
	Disk     string            `json:"disk,omitempty" doc:"What the root's changes, /tmp and Docker's data may take on disk, as a quantity. Default 10Gi."`
	GPU      string            `json:"gpu,omitempty" doc:"Refused: this server offers no GPU."`
	Env      map[string]string `json:"env,omitempty" doc:"Environment of every process."`
	Docker   DockerSpec        `json:"docker,omitempty"`
	Network  NetworkSpec       `json:"network,omitempty"`

	AutoPause float64 `json:"auto_pause,omitempty" doc:"Seconds without an open request after which it is paused. The next request resumes it. Default: never."`
}

// DockerSpec says whether and how dockerd runs in the sandbox.
type DockerSpec struct {
	Enabled      bool          `json:"enabled,omitempty" doc:"Start dockerd. The image must hold Docker: Image().with_docker()."`
	Profile      DockerProfile `json:"profile,omitempty" enum:"full,minimal" doc:"full (default): overlay file systems, bridge networks, published ports. minimal: vfs and host networking only."`
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
	State     SandboxState       `json:"state" enum:"creating,running,paused,terminating,terminated,failed"`
	Idle      bool               `json:"idle,omitempty" doc:"It is paused by auto_pause: the next request resumes it."`
	Persisted bool               `json:"persisted,omitempty" doc:"It is paused with its memory on the disk."`
	Reason    string             `json:"reason,omitempty" doc:"Why it failed or ended, and the next step."`
	Image     string             `json:"image"`
	CPU       float64            `json:"cpu" doc:"Cores."`
	Memory    int64              `json:"memory" doc:"Bytes."`
	Disk      int64              `json:"disk" doc:"Bytes."`
	Address   string             `json:"address,omitempty" doc:"IPv4 address on the sandbox network."`
	Start     StartKind          `json:"start,omitempty" enum:"cold,warm,pool,snapshot" doc:"pool: it was ready; warm: restored from a template; cold: started from its image, for which the sandbox's log says why."`
	Docker    DockerStatus       `json:"docker"`
	RequestID string             `json:"request_id,omitempty" doc:"The request that made it."`
	CreatedAt time.Time          `json:"created_at"`
	EndedAt   *time.Time         `json:"ended_at,omitempty"`
	Timings   map[string]float64 `json:"timings,omitempty" doc:"Seconds that each phase of the start took."`
}

// StartKind says how a sandbox came to run.
type StartKind string

// How a sandbox comes to run.
const (
	StartCold     StartKind = "cold"     // from its image
	StartWarm     StartKind = "warm"     // from a checkpoint of one that nobody used
	StartPool     StartKind = "pool"     // ready before it was asked for
	StartSnapshot StartKind = "snapshot" // from a snapshot
)

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

// How long the processes of a sandbox that is terminated have to end, from
// SIGTERM to SIGKILL.
const (
	DefaultGrace = 10 * time.Second
	MaxGrace     = 5 * time.Minute
)

// DockerStatus is the state of Docker in a sandbox.
type DockerStatus struct {
	State   DockerState   `json:"state" enum:"disabled,starting,ready,restarting,failed"`
	Code    Code          `json:"code,omitempty" doc:"Error code, when failed."`
	Reason  string        `json:"reason,omitempty" doc:"Why it failed and the next step; or what it waits for."`
	Profile DockerProfile `json:"profile,omitempty"`
	Version string        `json:"version,omitempty" doc:"Version of dockerd, once ready."`
	Seconds float64       `json:"seconds,omitempty" doc:"From the start of the sandbox to ready."`

	Restarts int `json:"restarts,omitempty" doc:"How often dockerd or containerd died and was started again."`
}
