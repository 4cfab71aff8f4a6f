package runtime

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/innerdock/innerdock"
	"golang.org/x/sys/unix"
)

// RunscConfig says which runsc is used, and how.
type RunscConfig struct {
	Path     string       // the runsc binary, as tools/runsc/build.sh makes it
	Root     string       // runsc's state; made if it is missing; one server's alone
	Platform string       // "systrap" (also for ""), "kvm" or "ptrace"
	DebugLog string       // directory for gVisor's verbose logs; "": none
	Log      *slog.Logger // nil: silent
}

// Runsc is the Runtime that executes gVisor's runsc. It is safe for concurrent
// use; calls for one sandbox are ordered by runsc's own lock.
type Runsc struct {
	config  RunscConfig
	version string
	log     *slog.Logger
}

var _ Runtime = (*Runsc)(nil)

// versionTimeout bounds the question for runsc's version, cleanupTimeout the
// removal of a sandbox whose creation failed.
const (
	versionTimeout = 10 * time.Second
	cleanupTimeout = 30 * time.Second
)

// NewRunsc asks the binary for its version and refuses one below the floor.
func NewRunsc(ctx context.Context, config RunscConfig) (*Runsc, error) {
	r := &Runsc{config: config, log: config.Log}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if !filepath.IsAbs(config.Path) || !filepath.IsAbs(config.Root) {
		return nil, innerdock.Errorf(innerdock.CodeInvalid, "the paths of runsc %q and of its root %q must be absolute", config.Path, config.Root)
	}
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	text, err := r.call(ctx, []string{"--version"})
	if err != nil {
		return nil, innerdock.Errorf(innerdock.CodeUnavailable, "cannot run %s; build it with `make runsc`: %w", config.Path, err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	r.version = strings.TrimSpace(strings.TrimPrefix(first, "runsc version"))
	if err := CheckVersion(r.version); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(config.Root, 0o700); err != nil {
		return nil, innerdock.Internal(err, "making runsc's root directory")
	}
	return r, nil
}

// Version returns the version that runsc tells, such as
// "v0.0.0-20260905035102-160fafc42237".
func (r *Runsc) Version() string { return r.version }

// Build names the binary by its content: what one build checkpoints, another
// may not be able to restore, whatever their versions.
func (r *Runsc) Build() (string, error) {
	binary, err := os.Open(r.config.Path)
	if err != nil {
		return "", innerdock.Internal(err, "reading runsc")
	}
	defer binary.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, binary); err != nil {
		return "", innerdock.Internal(err, "reading runsc")
	}
	return hex.EncodeToString(sum.Sum(nil)[:8]) + "-" + r.config.platform(), nil
}

// Close gives back what runsc keeps for all sandboxes together, if there is
// none: an empty network namespace, mounted in the root directory, that all
// file servers run in. While sandboxes live it does nothing.
func (r *Runsc) Close(ctx context.Context) error {
	list, err := r.List(ctx)
	if err != nil || len(list) > 0 {
		return err
	}
	path := filepath.Join(r.config.Root, "null-netns")
	// More than once: two first creations at a time each mount it.
	for err = nil; err == nil; err = unix.Unmount(path, unix.MNT_DETACH) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return innerdock.Internal(err, "unmounting runsc's empty network namespace")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return innerdock.Internal(err, "removing runsc's empty network namespace")
	}
	return nil
}

// Create implements Runtime.
func (r *Runsc) Create(ctx context.Context, s Spec) (pid int, err error) {
	return r.make(ctx, s, "creating the sandbox", r.config.createArgv)
}

// make executes the command that brings a sandbox into being. When it fails,
// nothing of the sandbox is left.
func (r *Runsc) make(ctx context.Context, s Spec, doing string, argv func(s Spec, errorLog string) []string) (pid int, err error) {
	if err := s.Validate(); err != nil {
		return 0, err
	}
	// Asked first, because a failed creation is undone below, and a sandbox that
	// was there before must survive the attempt.
	if r.exists(s.ID) {
		return 0, stateError(innerdock.CodeConflict, ErrExists, s.ID)
	}
	if err := makeParent(cgroupRoot); err != nil {
		return 0, err
	}
	if err := writeBundle(s); err != nil {
		return 0, err
	}
	errorLog := filepath.Join(s.BundleDir, "runsc.log")
	err = r.callDetached(ctx, argv(s, errorLog), errorLog)
	if err == nil {
		pid, err = readPID(filepath.Join(s.BundleDir, pidFile))
	}
	if err == nil {
		err = leaveRoom(s.ID, s.Memory)
	}
	if err == nil {
		return pid, nil
	}
	if said(err, "container already exists") {
		return 0, stateError(innerdock.CodeConflict, ErrExists, s.ID)
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if left := r.Delete(undo, s.ID); left != nil {
		r.log.Error("removing a sandbox that could not be made", "sandbox", s.ID, "error", left)
	}
	return 0, explain(err, s.ID, doing)
}

// Start implements Runtime.
func (r *Runsc) Start(ctx context.Context, id string) error {
	return r.do(ctx, id, "starting the sandbox", r.config.argv("start", id))
}

// Kill implements Runtime.
func (r *Runsc) Kill(ctx context.Context, id string, sig syscall.Signal) error {
	return r.do(ctx, id, "signalling the sandbox", r.config.killArgv(id, sig))
}

// Pause implements Runtime.
func (r *Runsc) Pause(ctx context.Context, id string) error {
	return r.do(ctx, id, "pausing the sandbox", r.config.argv("pause", id))
}

// Resume implements Runtime.
func (r *Runsc) Resume(ctx context.Context, id string) error {
	return r.do(ctx, id, "resuming the sandbox", r.config.argv("resume", id))
}

// Delete implements Runtime. What runsc does not know of, because it was killed
// while it created the sandbox, is found by the cgroup.
func (r *Runsc) Delete(ctx context.Context, id string) error {
	err := r.do(ctx, id, "deleting the sandbox", r.config.argv("delete", "--force", id))
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if err := removeCgroup(ctx, id); err != nil {
		return innerdock.Internal(err, "removing the sandbox's cgroup")
	}
	if err := r.removeRemains(id); err != nil {
		return innerdock.Internal(err, "removing what runsc keeps of the sandbox")
	}
	return nil
}

// State implements Runtime.
func (r *Runsc) State(ctx context.Context, id string) (State, error) {
	if err := CheckID(id); err != nil {
		return State{}, err
	}
	text, err := r.call(ctx, r.config.argv("state", id))
	if err != nil {
		return State{}, explain(err, id, "asking for the sandbox's state")
	}
	var state ociState
	if err := json.Unmarshal(text, &state); err != nil {
		return State{}, innerdock.Internal(err, "reading the sandbox's state")
	}
	return state.ours(), nil
}

// List implements Runtime.
func (r *Runsc) List(ctx context.Context) ([]State, error) {
	text, err := r.call(ctx, r.config.argv("list", "--format=json"))
	if err != nil {
		return nil, innerdock.Internal(err, "listing sandboxes")
	}
	var states []ociState
	if err := json.Unmarshal(text, &states); err != nil {
		return nil, innerdock.Internal(err, "reading the list of sandboxes")
	}
	list := make([]State, 0, len(states))
	for _, s := range states {
		list = append(list, s.ours())
	}
	return list, nil
}

// Wait implements Runtime. It is a process of runsc for as long as it waits
// (some 20 MB); who needs no exit code watches State.PID with a pidfd instead.
func (r *Runsc) Wait(ctx context.Context, id string) (int, error) {
	// runsc itself would wait two minutes for a sandbox that was not started.
	state, err := r.State(ctx, id)
	switch {
	case err != nil:
		return 0, err
	case state.Status == Created:
		return 0, stateError(innerdock.CodeConflict, ErrState, id)
	case state.Status == Stopped:
		return 0, stateError(innerdock.CodeSandboxTerminated, ErrExitUnknown, id)
	}
	text, err := r.call(ctx, r.config.argv("wait", id))
	if err != nil {
		return 0, explain(err, id, "waiting for the sandbox")
	}
	var result struct {
		ExitStatus int `json:"exitStatus"`
	}
	if err := json.Unmarshal(text, &result); err != nil {
		return 0, innerdock.Internal(err, "reading the sandbox's exit code")
	}
	return result.ExitStatus, nil
}

// UpperTar implements Runtime.
func (r *Runsc) UpperTar(ctx context.Context, id string, w io.Writer) error {
	if err := CheckID(id); err != nil {
		return err
	}
	// runsc talks on its standard output, and opens the file that it is given by
	// name, from its beginning: hence a pipe with a name.
	out, in, err := os.Pipe()
	if err != nil {
		return innerdock.Internal(err, "making a pipe")
	}
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(w, out)
		out.Close() // a writer that failed ends runsc as well
		copied <- err
	}()
	_, callErr := r.call(ctx, r.config.argv("tar", "rootfs-upper", "--file=/proc/self/fd/3", id), in)
	in.Close()
	if callErr != nil {
		// A runsc that was killed leaves the other end of the pipe to the sandbox.
		_ = out.SetReadDeadline(time.Unix(1, 0))
	}
	copyErr := <-copied
	switch {
	case copyErr != nil && !errors.Is(copyErr, os.ErrDeadlineExceeded):
		return innerdock.Internal(copyErr, "handing over the sandbox's writable layer")
	case callErr != nil:
		return explain(callErr, id, "reading the sandbox's writable layer")
	}
	return nil
}

// do runs a verb for one sandbox that answers nothing.
func (r *Runsc) do(ctx context.Context, id, doing string, argv []string) error {
	if err := CheckID(id); err != nil {
		return err
	}
	if _, err := r.call(ctx, argv); err != nil {
		return explain(err, id, doing)
	}
	return nil
}

// exists reports whether runsc has written the state of a sandbox.
func (r *Runsc) exists(id string) bool {
	_, err := os.Stat(filepath.Join(r.config.Root, id+"_sandbox:"+id+".state"))
	return err == nil
}

// ociState is a sandbox in runsc's words.
type ociState struct {
	ID     string `json:"id"`
	Status Status `json:"status"`
	PID    int    `json:"pid"`
}

// ours takes a sandbox for stopped whose kernel is a zombie: runsc takes it for
// alive until its parent has read its exit status.
func (s ociState) ours() State {
	if s.PID <= 0 || zombie(s.PID) {
		return State{ID: s.ID, Status: Stopped}
	}
	return State(s)
}

func zombie(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	_, fields, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(fields, "Z") || strings.HasPrefix(fields, "X")
}

// explain turns a failure of runsc into an error of innerdock.
func explain(err error, id, doing string) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return innerdock.Errorf(innerdock.CodeTimeout, "%s took too long: %w", doing, err)
	case errors.Is(err, context.Canceled):
		return innerdock.Errorf(innerdock.CodeUnavailable, "%s was interrupted: %w", doing, err)
	case said(err, "loading container: file does not exist"), stateCutShort(err):
		return stateError(innerdock.CodeNotFound, ErrNotFound, id)
	case said(err, "exit status is unavailable"):
		return stateError(innerdock.CodeSandboxTerminated, ErrExitUnknown, id)
	case said(err, "in state ", "is not running", "connecting to control server"):
		return stateError(innerdock.CodeConflict, ErrState, id)
	}
	return innerdock.Internal(err, doing)
}

// stateCutShort reports whether runsc read what it keeps of a sandbox and that is not
// whole, as after a crash of the host. What could not be read may be whole.
func stateCutShort(err error) bool {
	return said(err, "reading container metadata file") && said(err, "unexpected end of JSON input", "invalid character")
}

// readPID reads the file that runsc writes the kernel's process ID to.
func readPID(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// readErrorLog returns the messages of runsc's --log file.
func readErrorLog(path string) string {
	var messages []string
	decoder := json.NewDecoder(strings.NewReader(string(readCapped(path, maxError))))
	for {
		var line struct {
			Msg string `json:"msg"`
		}
		if decoder.Decode(&line) != nil {
			return strings.Join(messages, "; ")
		}
		messages = append(messages, line.Msg)
	}
}
