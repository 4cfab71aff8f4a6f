// Package runtime starts, watches and removes gVisor sandboxes on this machine.
//
// Runtime is what the worker needs of a sandbox runtime; Runsc is the real one
// and executes gVisor's runsc. It keeps no state of its own: whatever it knows
// of a sandbox, runsc has written below its root directory, so that a server
// which was killed and started again finds every sandbox where it left it.
// Package runtimefake has an implementation in memory, and package runtimetest
// the suite that both pass.
package runtime

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"github.com/innerdock/innerdock"
)

// Runtime runs sandboxes. Its errors are *innerdock.Error and, where the caller
// can act on them, one of the Err values below.
type Runtime interface {
	// Create makes the sandbox: its kernel runs, its PID 1 does not yet. It returns
	// the kernel's process ID on the host, as State does later. The
	// control and agent directories and the network namespace must exist. When it
	// fails, or ctx ends, nothing of the sandbox is left. Errors: ErrExists.
	Create(ctx context.Context, spec Spec) (pid int, err error)
	// Start runs PID 1 of a created sandbox. Errors: ErrNotFound, ErrState.
	Start(ctx context.Context, id string) error
	// Checkpoint writes the memory, processes and writable files of a running or
	// paused sandbox to dir, which it makes. When it returns without an error, they
	// are on disk, and the sandbox goes on, or stays paused, or has ended as then
	// says; Delete it then. When it fails, dir may hold a part, and the sandbox may
	// go on or not.
	// Errors: ErrNotFound, ErrState.
	Checkpoint(ctx context.Context, id, dir string, then After) error
	// Restore makes a sandbox of spec that goes on where the checkpoint in dir
	// ended, and returns as Create does; the sandbox runs. Of spec, these must be
	// as they were: Rootfs, Disk, ScratchDir, Args, Docker and Shape. Connections
	// are gone: the sandbox sees its control directory, network namespace and
	// hostname, its memory and CPU as spec says. Memory may still be read
	// from dir after the return: a sandbox whose checkpoint lacks some dies.
	// Errors: ErrExists.
	Restore(ctx context.Context, spec Spec, dir string) (pid int, err error)
	// Pause has all processes of a running sandbox stand still until Resume: they
	// take no CPU and keep their memory, and its network answers. Until then it
	// takes no signal: ErrState. It succeeds for one that is paused. When it fails, the sandbox may be paused or not; Resume it then.
	// Errors: ErrNotFound, ErrState for one that has ended.
	Pause(ctx context.Context, id string) error
	// Resume has a paused sandbox go on. It succeeds for one that runs, whatever
	// became of commands before. Errors: as Pause.
	Resume(ctx context.Context, id string) error
	// State reports where a sandbox is. Errors: ErrNotFound.
	State(ctx context.Context, id string) (State, error)
	// Kill sends a signal to PID 1; the end of PID 1 is the end of the sandbox.
	// Errors: ErrNotFound, ErrState for a sandbox that does not run.
	Kill(ctx context.Context, id string, sig syscall.Signal) error
	// Delete ends a sandbox, whatever its state, and frees what the runtime holds
	// of it, its cgroup included. It succeeds for one that is not there.
	Delete(ctx context.Context, id string) error
	// Wait returns the exit code of PID 1 once it has ended: 128+n for signal n.
	// It works for any running sandbox, not only those that this process started.
	// Errors: ErrNotFound, ErrState for one that was not started, and
	// ErrExitUnknown when the sandbox had ended before, or its kernel died before
	// it could tell (out of memory, killed from outside).
	Wait(ctx context.Context, id string) (exitCode int, err error)
	// List returns all sandboxes, in no order.
	List(ctx context.Context) ([]State, error)
	// UpperTar writes what a running sandbox changed below / as a tar archive.
	// Deleted files are whiteouts; mounts are not part of it. What it writes was
	// made inside the sandbox: the reader must cap it. Errors: ErrNotFound, ErrState.
	UpperTar(ctx context.Context, id string, w io.Writer) error
}

// The errors that callers tell apart with errors.Is.
var (
	ErrNotFound    = errors.New("no such sandbox in the runtime")                     // code not_found
	ErrExists      = errors.New("a sandbox of this ID exists in the runtime")         // code conflict
	ErrState       = errors.New("the state of the sandbox does not allow it")         // code conflict
	ErrExitUnknown = errors.New("the sandbox ended without telling its exit code")    // code sandbox_terminated
	ErrVersion     = errors.New("this runsc is too old or does not tell its version") // code unsupported
)

// Spec describes a sandbox to Create. Paths are absolute paths of the host.
type Spec struct {
	ID         string   // 12 characters of a-z and 2-7
	Hostname   string   // "": the ID
	Rootfs     string   // an EROFS file: the read-only root
	Disk       int64    // bytes that the writable layer, /tmp and Docker's data may each take; 0: unlimited
	ScratchDir string   // constant for all sandboxes of a server: holds the files behind writable layers
	Args       []string // PID 1
	Env        []string // of PID 1, KEY=value
	NetNS      string   // network namespace; "": one of its own, with no link
	Cgroup     string   // CgroupPath(ID), or "" for the same
	CPU        float64  // cores; 0: unlimited
	Memory     int64    // bytes of host memory, the sandbox's kernel and tmpfs included; 0: unlimited. See overrun
	Shape      int64    // bytes of memory that the sandbox's inner limits are made for; 0: Memory
	PIDs       int64    // tasks on the host; 0: unlimited
	Docker     bool     // what dockerd needs: see Capabilities and the raw-socket flags in argv.go
	DockerDir  string   // holds the file behind /var/lib/docker; with Docker only
	ControlDir string   // appears read-only as /run/innerdock; sockets in it can be dialled
	AgentDir   string   // appears read-only as /.innerdock
	Moved      bool     // Restore: the checkpoint was taken with other paths of Rootfs and ScratchDir
	BundleDir  string   // the sandbox's own: config.json and runsc's logs are written to it

	// WithoutCapability takes one capability away, as in "CAP_MKNOD". It is for
	// the test that finds out which ones Docker needs.
	WithoutCapability string
}

// After is what becomes of a sandbox that was checkpointed.
type After bool

// What a checkpointed sandbox does.
const (
	End  After = false // its processes have ended, unseen by themselves
	GoOn After = true  // they go on and notice nothing
)

// Status is where a sandbox is, in runsc's words.
type Status string

// The states of a sandbox in the runtime.
const (
	Creating Status = "creating"
	Created  Status = "created"
	Running  Status = "running"
	Paused   Status = "paused"
	Stopped  Status = "stopped"
)

// State is a sandbox as the runtime sees it.
type State struct {
	ID     string
	Status Status
	PID    int // of the sandbox's kernel (the sentry) on the host; 0 when stopped
}

var idPattern = regexp.MustCompile(`^[a-z2-7]{12}$`)

// CheckID refuses what cannot be the ID of a sandbox. runsc accepts prefixes of
// IDs in place of IDs; a fixed length is what keeps one from being another's.
func CheckID(id string) error {
	if !idPattern.MatchString(id) {
		return innerdock.Errorf(innerdock.CodeInvalid, "%q is not a sandbox ID: 12 characters of a-z and 2-7", id)
	}
	return nil
}

// CgroupPath returns the cgroup of a sandbox, below every hierarchy's root.
func CgroupPath(id string) string { return "/innerdock/" + id }

// Validate refuses a specification that no runtime could run.
func (s Spec) Validate() error {
	if err := CheckID(s.ID); err != nil {
		return err
	}
	invalid := func(format string, args ...any) error {
		return innerdock.Errorf(innerdock.CodeInvalid, "sandbox "+s.ID+": "+format, args...)
	}
	for _, p := range []struct{ name, path string }{
		{"Rootfs", s.Rootfs}, {"ScratchDir", s.ScratchDir}, {"ControlDir", s.ControlDir},
		{"AgentDir", s.AgentDir}, {"BundleDir", s.BundleDir},
	} {
		if !filepath.IsAbs(p.path) || strings.ContainsAny(p.path, ",\n") {
			return invalid("%s %q must be an absolute path without commas", p.name, p.path)
		}
	}
	switch {
	case len(s.Args) == 0:
		return invalid("Args is empty")
	case s.Cgroup != "" && s.Cgroup != CgroupPath(s.ID):
		return invalid("Cgroup must be %s", CgroupPath(s.ID))
	case s.CPU < 0 || s.Memory < 0 || s.Shape < 0 || s.PIDs < 0 || s.Disk < 0:
		return invalid("a limit is negative")
	case s.Docker != (s.DockerDir != ""):
		return invalid("Docker and DockerDir go together")
	case s.Docker && (!filepath.IsAbs(s.DockerDir) || s.DockerDir == s.ScratchDir || strings.ContainsAny(s.DockerDir, ",\n")):
		return invalid("DockerDir %q must be an absolute path without commas, other than ScratchDir", s.DockerDir)
	}
	return nil
}

// stateError makes the error for a sandbox that is not there, exists already or
// is in the wrong state.
func stateError(code innerdock.Code, kind error, id string) error {
	return innerdock.Errorf(code, "%w: %s", kind, id)
}
