package process

import (
	"cmp"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/child"
	"github.com/innerdock/innerdock/pkg/agent/output"
)

const (
	// MaxExited is how many exited processes are remembered.
	MaxExited = 256
	// MaxExitedOutput caps the output of all exited processes together, in
	// bytes: the output of the oldest is dropped, their exit codes stay.
	MaxExitedOutput = 64 << 20
)

// Table holds the processes that were started through the API.
type Table struct {
	reaper *child.Reaper
	root   string // before /etc: "" but for tests

	mu       sync.Mutex
	defaults Defaults
	running  map[int]*entry
	exited   []*entry // oldest first
	closing  bool
	ending   sync.WaitGroup
}

// entry is a process with what the API tells about it.
type entry struct {
	*Process
	spec           innerdock.ProcessSpec
	stdout, stderr *output.Buffer
}

// Defaults are what a process begins with unless its request says otherwise.
type Defaults struct {
	Env  map[string]string // without HOME, that is the user's
	Dir  string            // absolute; what is relative is relative to it
	User string            // see LookupUser; "" is root
}

// NewTable returns an empty table, of a sandbox whose files are below root.
func NewTable(reaper *child.Reaper, root string, defaults Defaults) *Table {
	return &Table{reaper: reaper, root: root, defaults: defaults, running: make(map[int]*entry)}
}

// SetDefaults changes what the next processes begin with.
func (t *Table) SetDefaults(defaults Defaults) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.defaults = defaults
}

// Dir is the directory that what is relative is relative to.
func (t *Table) Dir() string { return t.current().Dir }

func (t *Table) current() Defaults {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.defaults
}

// Environ returns root's environment with extra added to it, sorted.
func (t *Table) Environ(extra map[string]string) []string {
	return t.current().environ("/root", extra)
}

func (d Defaults) environ(home string, extra map[string]string) []string {
	all := map[string]string{"HOME": home}
	maps.Copy(all, d.Env)
	maps.Copy(all, extra)
	list := make([]string, 0, len(all))
	for k, v := range all {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return list
}

// Exec starts a process.
func (t *Table) Exec(spec innerdock.ProcessSpec) (*entry, error) {
	if err := validate(spec); err != nil {
		return nil, err
	}
	defaults := t.current()
	spec.Cwd, spec.User = absolute(defaults.Dir, spec.Cwd), cmp.Or(spec.User, defaults.User)
	who, err := LookupUser(filepath.Join(t.root, "/etc"), spec.User)
	if err != nil {
		return nil, err
	}
	home := "/root"
	if who != nil {
		home = who.Home
	}
	env := defaults.environ(home, spec.Env)
	if err := directory(spec.Cwd); err != nil {
		return nil, err
	}
	path, err := Lookup(spec.Args[0], spec.Cwd, env)
	if err != nil {
		return nil, err
	}
	e := &entry{spec: spec, stdout: output.NewBuffer(BufferSize), stderr: output.NewBuffer(BufferSize)}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing {
		return nil, innerdock.Errorf(innerdock.CodeUnavailable, "the sandbox is stopping")
	}
	e.Process, err = Start(t.reaper, Command{Path: path, Args: spec.Args, Dir: spec.Cwd, Env: env, User: who,
		Stdin: spec.Stdin, Stdout: e.stdout, Stderr: e.stderr})
	if err != nil {
		return nil, err
	}
	t.forget(e.pid)
	t.running[e.pid] = e
	t.ending.Go(func() {
		<-e.Done()
		t.retire(e)
	})
	return e, nil
}

// maxUser is the longest name of a user with its group.
const maxUser = 257

func validate(spec innerdock.ProcessSpec) error {
	if len(spec.Args) == 0 || spec.Args[0] == "" {
		return innerdock.Errorf(innerdock.CodeInvalid, "args is empty; it begins with the program to run")
	}
	for k := range spec.Env {
		if k == "" || strings.ContainsAny(k, "=\x00") {
			return innerdock.Errorf(innerdock.CodeInvalid, "env: %q is no name of a variable", k)
		}
	}
	if len(spec.User) > maxUser || strings.ContainsFunc(spec.User, unicode.IsControl) {
		return innerdock.Errorf(innerdock.CodeInvalid, "user is a name or a number, such as app, 1000 or app:staff")
	}
	if strings.ContainsRune(spec.Cwd, 0) || strings.ContainsRune(spec.Args[0], 0) {
		return innerdock.Errorf(innerdock.CodeInvalid, "cwd and args hold no zero bytes")
	}
	return nil
}

// retire moves e to the exited ones and drops the oldest of them.
func (t *Table) retire(e *entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running[e.pid] == e {
		delete(t.running, e.pid)
	}
	t.exited = append(t.exited, e)
	if len(t.exited) > MaxExited {
		t.exited[0].discard()
		t.exited = slices.Delete(t.exited, 0, 1)
	}
	kept := int64(0)
	for _, old := range slices.Backward(t.exited) {
		if kept += old.stdout.Size() + old.stderr.Size(); kept > MaxExitedOutput && old != e {
			old.discard()
		}
	}
}

// forget drops an exited process whose ID is given to another.
func (t *Table) forget(pid int) {
	t.exited = slices.DeleteFunc(t.exited, func(e *entry) bool {
		if e.pid != pid {
			return false
		}
		e.discard()
		return true
	})
}

func (e *entry) discard() {
	e.stdout.Discard()
	e.stderr.Discard()
}

// Get returns the process with that ID, running or remembered.
func (t *Table) Get(pid int) (*entry, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e, ok := t.running[pid]; ok {
		return e, nil
	}
	for _, e := range slices.Backward(t.exited) {
		if e.pid == pid {
			return e, nil
		}
	}
	return nil, innerdock.Errorf(innerdock.CodeNotFound,
		"no process %d was started through the API, or it is not among the last %d that exited", pid, MaxExited)
}

// Status returns the exit code of a process, and whether it has one yet.
func (t *Table) Status(pid int) (code int, exited bool, err error) {
	e, err := t.Get(pid)
	if err != nil {
		return 0, false, err
	}
	p := e.info()
	if p.ExitCode == nil {
		return 0, false, nil
	}
	return *p.ExitCode, true, nil
}

// List returns all processes, in the order of their start.
func (t *Table) List() []innerdock.Process {
	t.mu.Lock()
	all := slices.Concat(t.exited, slices.Collect(maps.Values(t.running)))
	t.mu.Unlock()
	list := make([]innerdock.Process, 0, len(all))
	for _, e := range all {
		list = append(list, e.info())
	}
	slices.SortFunc(list, func(a, b innerdock.Process) int { return a.StartedAt.Compare(b.StartedAt) })
	return list
}

// info is what the API tells about the process.
func (e *entry) info() innerdock.Process {
	p := innerdock.Process{PID: e.pid, Args: e.spec.Args, Cwd: e.spec.Cwd, State: innerdock.ProcessRunning,
		StartedAt: e.started, Stdout: e.stdout.Len(), Stderr: e.stderr.Len()}
	select {
	case <-e.Done():
	default:
		return p
	}
	exit := e.Exit()
	p.State, p.ExitCode, p.ExitedAt = innerdock.ProcessExited, &exit.Code, &exit.At
	p.Stdout, p.Stderr = e.stdout.Len(), e.stderr.Len()
	if exit.Signal != 0 {
		p.Signal = unix.SignalName(exit.Signal)
	}
	return p
}

// Close ends all processes: SIGTERM, and SIGKILL to those that are left after
// grace. Nothing can be started any more.
func (t *Table) Close(grace time.Duration) {
	t.mu.Lock()
	t.closing = true
	entries := slices.Collect(maps.Values(t.running))
	t.mu.Unlock()
	for _, e := range entries {
		_ = e.Signal(syscall.SIGTERM)
	}
	late := time.NewTimer(grace)
	defer late.Stop()
	for _, e := range entries {
		select {
		case <-e.Done():
			continue
		case <-late.C:
		}
		break
	}
	for _, e := range entries {
		_ = e.Signal(syscall.SIGKILL)
	}
	for _, e := range entries {
		<-e.Done()
	}
	t.ending.Wait()
	t.mu.Lock()
	exited := t.exited
	t.mu.Unlock()
	for _, e := range exited {
		e.Process.Close()
	}
}
