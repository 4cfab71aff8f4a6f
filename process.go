package innerdock

import "time"

// ProcessSpec asks for a process in a sandbox.
type ProcessSpec struct {
	Args  []string          `json:"args" doc:"The program and its arguments; no shell is involved." minItems:"1"`
	Cwd   string            `json:"cwd,omitempty" doc:"Working directory. Default: the image's, else /workspace."`
	User  string            `json:"user,omitempty" doc:"A name or number, and :GROUP if need be. Default: the image's, else root."`
	Env   map[string]string `json:"env,omitempty" doc:"Added to the sandbox's environment."`
	Stdin bool              `json:"stdin,omitempty" doc:"Keep standard input open for POST …/stdin; otherwise it is empty."`
}

// ProcessState says whether a process runs.
type ProcessState string

// The states of a process.
const (
	ProcessRunning ProcessState = "running"
	ProcessExited  ProcessState = "exited"
)

// Process is a process that was started through the API.
type Process struct {
	PID       int          `json:"pid" doc:"Process ID in the sandbox."`
	Args      []string     `json:"args"`
	Cwd       string       `json:"cwd"`
	State     ProcessState `json:"state" enum:"running,exited"`
	ExitCode  *int         `json:"exit_code,omitempty" doc:"Once exited; 128 + the signal's number after a signal."`
	Signal    string       `json:"signal,omitempty" doc:"The signal that ended it, such as SIGKILL."`
	StartedAt time.Time    `json:"started_at"`
	ExitedAt  *time.Time   `json:"exited_at,omitempty"`
	Stdout    int64        `json:"stdout_bytes" doc:"Bytes written to standard output so far."`
	Stderr    int64        `json:"stderr_bytes" doc:"Bytes written to standard error so far."`
}

// OutputHeader carries, on a raw read of stdout or stderr, the offset of the
// body's first byte. It is past the offset that was asked for when the oldest
// bytes had to be dropped.
const OutputHeader = "Innerdock-Offset"

// OutputEvent is the data of one server-sent event of a process's output. The
// event's name says which: started, stdout, stderr, dropped or exit.
type OutputEvent struct {
	Process *Process `json:"process,omitempty" doc:"With started and exit."`
	Stream  string   `json:"stream,omitempty" enum:"stdout,stderr" doc:"With dropped: the stream that lost bytes."`
	Offset  int64    `json:"offset,omitempty" doc:"Offset of the first byte of data (or of the first byte lost)."`
	Data    []byte   `json:"data,omitempty" doc:"Base64."`
	Dropped int64    `json:"dropped,omitempty" doc:"Bytes lost, with dropped."`
}

// FileInfo describes a file in a sandbox.
type FileInfo struct {
	Name     string    `json:"name"`
	Path     string    `json:"path"`
	Size     int64     `json:"size" doc:"Bytes."`
	Mode     string    `json:"mode" doc:"Permission bits in octal, such as 0644."`
	Type     string    `json:"type" enum:"file,directory,symlink,other"`
	Target   string    `json:"target,omitempty" doc:"Where a symlink points."`
	UID      int       `json:"uid"`
	GID      int       `json:"gid"`
	Modified time.Time `json:"modified"`
}
