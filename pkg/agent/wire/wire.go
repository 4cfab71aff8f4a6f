// Package wire is what the worker and the agent inside a sandbox agree on: how
// the agent introduces itself when it dials home, and the requests that only
// the worker sends. Everything else that an agent serves is the public API.
//
// The agent connects to Socket, writes one Hello as a line of JSON, reads one
// Welcome, and from then on the connection is a yamux session: the worker is
// its client and opens streams, the agent serves HTTP/1.1 on each of them.
package wire

import (
	"github.com/innerdock/innerdock"
)

const (
	// ControlDir is where the sandbox sees its control directory.
	ControlDir = "/run/innerdock"
	// SocketName is the control socket's name in that directory.
	SocketName = "agent.sock"
	// AgentDir is where the sandbox sees the directory of the agent's binary.
	AgentDir = "/.innerdock"
	// AgentPath is PID 1 of every sandbox.
	AgentPath = AgentDir + "/innerdock-agent"
	// RuncPath is the program that Docker starts as runc, and that starts runc.
	RuncPath = AgentDir + "/innerdock-runc"
	// Version is the protocol's; a worker speaks to its own and the one before.
	Version = 1
	// MaxLine caps a line of the handshake and of a start's events, in bytes.
	MaxLine = 64 << 10
)

// Hello is the first line that an agent sends.
type Hello struct {
	Protocol int    `json:"protocol"`
	Agent    string `json:"agent"` // the agent's build version
}

// Welcome is the worker's answer. A non-empty Error ends the connection.
type Welcome struct {
	Protocol int    `json:"protocol"`
	Error    string `json:"error,omitempty"`
}

// Internal endpoints of the agent. The server never proxies them.
const (
	PathHealth      = "/health"       // GET: Health when the agent serves
	PathConfigure   = "/configure"    // POST Configuration: 204
	PathFreeze      = "/freeze"       // POST: prepares for a checkpoint, which may be taken after the answer; Docker waits for its next start; 204
	PathRelieve     = "/relieve"      // POST: kills the process that takes most memory; Relief
	PathDockerStart = "/docker/start" // POST DockerStart: a stream of DockerEvent, one JSON object a line
	PathDockerStop  = "/docker/stop"  // POST: stops dockerd and its containers; 204
	PathDockerKeep  = "/docker/keep"  // POST: stops dockerd, and keeps its images in the root, for the Docker of every sandbox that has it; 204
	PathDockerState = "/docker/state" // GET ?not=STATE&restarts=N&wait=SECONDS: DockerReport, once one is not that or at the timeout (≤ 60)
	PathShutdown    = "/shutdown"     // POST Shutdown: 204, and then everything in the sandbox ends, PID 1 last
)

// Endpoints that become tunnels. The server answers for who may have one.
const (
	PathDockerConnect = "/docker/connect" // GET, Upgrade: the Docker API
	PathDockerPorts   = "/docker/ports"   // GET, Upgrade: PublishedPorts as they change, one JSON object a line; and back, what was heard
)

// Health is the answer of an agent that serves.
type Health struct {
	Agent     string `json:"agent"`     // its build version
	Processes int    `json:"processes"` // running children, dockerd included
}

// Relief says which process was killed because the sandbox runs out of memory.
type Relief struct {
	PID       int    `json:"pid"`
	Name      string `json:"name"`
	Bytes     int64  `json:"bytes"`               // that it had resident
	Container string `json:"container,omitempty"` // of Docker that it was in
	More      int    `json:"more,omitempty"`      // small processes of its session, killed with it
}

// Shutdown asks for the end of everything. An agent that gets SIGTERM does the
// same, with a grace of its own.
type Shutdown struct {
	Grace float64 `json:"grace"` // seconds between SIGTERM and SIGKILL
}

// Configuration is what a sandbox is told about itself, at its start and again
// after a restore.
type Configuration struct {
	Hostname   string            `json:"hostname"`
	Machine    string            `json:"machine"`        // for /etc/machine-id: 32 hexadecimal digits
	Address    string            `json:"address"`        // IPv4 of eth0
	Nameserver string            `json:"nameserver"`     // IPv4 of the gateway's DNS
	Env        map[string]string `json:"env"`            // of every process
	Dir        string            `json:"dir,omitempty"`  // where processes begin: absolute, "" is /workspace
	User       string            `json:"user,omitempty"` // whom they run as: "" is root

	// Docker is the profile of the Docker that will be started, or "": calls to
	// it wait from now on.
	Docker innerdock.DockerProfile `json:"docker,omitempty"`
}

// DockerStart asks the agent to start dockerd and to report each step.
type DockerStart struct {
	Profile innerdock.DockerProfile `json:"profile"`
	Address string                  `json:"address"` // IPv4 of eth0, for SNAT
	MTU     int                     `json:"mtu"`     // of eth0
	Mirror  string                  `json:"mirror"`  // URL of the registry cache; "" for none
}

// DockerStep is a step of Docker's start-up, in the order of these constants.
type DockerStep string

// The steps.
const (
	StepInstalled DockerStep = "installed" // is dockerd in the image
	StepRunDir    DockerStep = "run-dir"   // /var/run exists
	StepKernel    DockerStep = "kernel"    // cgroups, forwarding, SNAT
	StepDaemon    DockerStep = "daemon"    // the process is started
	StepSocket    DockerStep = "socket"    // its socket exists
	StepInfo      DockerStep = "info"      // it answers info
	StepReady     DockerStep = "ready"     // all done
)

// DockerdNotFound is what users of images without Docker read.
const DockerdNotFound = "dockerd not found - please install Docker in your image using Image().with_docker()"

// DockerEvent reports the start-up. A step is sent when it begins; Info repeats
// with its attempt. Error, with its code, is last: the start has failed.
type DockerEvent struct {
	Step     DockerStep     `json:"step"`
	Attempt  int            `json:"attempt,omitempty"`
	Version  string         `json:"version,omitempty"`   // with ready
	Code     innerdock.Code `json:"code,omitempty"`      // with Error
	Error    string         `json:"error,omitempty"`     // message and next step
	ExitCode *int           `json:"exit_code,omitempty"` // of a dockerd that died
	Log      string         `json:"log,omitempty"`       // its last lines
}

// DockerReport is the state of dockerd, also after its start: an agent restarts
// one that dies.
type DockerReport struct {
	State    innerdock.DockerState   `json:"state"` // disabled: not started, or stopped
	Profile  innerdock.DockerProfile `json:"profile,omitempty"`
	Version  string                  `json:"version,omitempty"`
	Restarts int                     `json:"restarts,omitempty"`  // since the last start that was asked for
	Code     innerdock.Code          `json:"code,omitempty"`      // with failed and restarting: why
	Reason   string                  `json:"reason,omitempty"`    // message and next step
	ExitCode *int                    `json:"exit_code,omitempty"` // of the dockerd that died last
	Log      string                  `json:"log,omitempty"`       // its last lines
}
