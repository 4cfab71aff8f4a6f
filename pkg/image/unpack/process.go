package unpack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image/child"
)

// Layer is one layer of an image, as Process takes it.
type Layer struct {
	Blob   *os.File // closed by Process
	DiffID string   // sha256:… of what it unpacks to
}

// Result is what Process has to say about an image.
type Result struct {
	Dropped int   // entries that were left out (device nodes, FIFOs)
	Memory  int64 // bytes of memory that it took at most
}

// processName is what Process calls its process: a program that is started under
// this name does nothing else.
const processName = "innerdock-unpack"

// The descriptors that the process gets beside the standard ones.
const (
	controlFD = 3
	outputFD  = 4
)

// message is what goes over the control socket: to the process the limits, then
// layers, each with its blob, then the end; from it one result.
type message struct {
	Limits *Limits `json:"limits,omitempty"`
	DiffID string  `json:"diff_id,omitempty"`
	End    bool    `json:"end,omitempty"`
}

type answer struct {
	Dropped int            `json:"dropped"`
	Memory  int64          `json:"memory"`
	Code    innerdock.Code `json:"code,omitempty"`
	Message string         `json:"message,omitempty"`
}

// maxAnswer is how long the process's answer may be, in bytes.
const maxAnswer = 16 << 10

// environ is the environment of the process: nothing of the host's.
var environ = []string{}

// Process makes an image's file of its layers, from the lowest, until next
// returns nil. It does so in a process that has no privileges, no network, no
// file system, bounded memory, time and output, and of the host only the blobs
// and out, which must be empty.
func Process(caller context.Context, out *os.File, limits Limits, next func(context.Context) (*Layer, error)) (Result, error) {
	ctx, cancel := context.WithCancelCause(caller)
	defer cancel(nil)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return Result{}, innerdock.Internal(err, "making a socket for unpacking")
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control")
	defer ours.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{processName}
	cmd.Env = environ
	cmd.ExtraFiles = []*os.File{theirs, out}
	cmd.SysProcAttr = namespaces()
	type end struct {
		stderr string
		err    error
	}
	ended := make(chan end, 1)
	go func() {
		stderr, err := child.Output(ctx, cmd)
		theirs.Close() // so that the receiver sees the end
		ended <- end{stderr, err}
	}()
	feeding := make(chan error, 1)
	go func() { feeding <- feed(ctx, int(ours.Fd()), limits, next) }()

	e := <-ended
	said, answered := receive(int(ours.Fd()))
	cancel(errEnded) // it needs no more layers
	fed := <-feeding
	switch {
	case caller.Err() != nil:
		return Result{}, context.Cause(caller)
	case answered && said.Code != "":
		return Result{Memory: said.Memory}, said.failure()
	case fed != nil && !errors.Is(fed, errEnded) && !errors.Is(fed, syscall.EPIPE):
		return Result{}, fed
	case answered && e.err == nil:
		return Result{Dropped: said.Dropped, Memory: said.Memory}, nil
	case strings.Contains(e.stderr, "out of memory"):
		return Result{}, innerdock.Errorf(innerdock.CodeTooLarge, "the image is refused: unpacking it takes too much memory; use a smaller image")
	case cmd.ProcessState != nil && cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime() >= maxTime:
		return Result{}, innerdock.Errorf(innerdock.CodeTooLarge, "the image is refused: unpacking it takes more than %v; use a smaller image", maxTime)
	case e.err == nil:
		e.err = errors.New("it said nothing")
	}
	return Result{}, innerdock.Internal(fmt.Errorf("%w: %s", e.err, e.stderr), "unpacking the image")
}

// namespaces are those that the process gets beside what package child gives.
func namespaces() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS}
}

var errEnded = errors.New("unpacking has ended")

// feed sends the layers.
func feed(ctx context.Context, control int, limits Limits, next func(context.Context) (*Layer, error)) error {
	if err := send(control, message{Limits: &limits}, nil); err != nil {
		return err
	}
	for {
		l, err := next(ctx)
		if err != nil {
			_ = unix.Shutdown(control, unix.SHUT_WR) // without an end: it gives up
			return err
		}
		if l == nil {
			return send(control, message{End: true}, nil)
		}
		err = send(control, message{DiffID: l.DiffID}, l.Blob)
		l.Blob.Close()
		if err != nil {
			return err
		}
	}
}

func send(control int, m message, file *os.File) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	var rights []byte
	if file != nil {
		rights = unix.UnixRights(int(file.Fd()))
	}
	return retry(func() error { return unix.Sendmsg(control, data, rights, nil, unix.MSG_NOSIGNAL) })
}

func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// receive reads what the process has said before it ended.
func receive(control int) (answer, bool) {
	buf := make([]byte, maxAnswer)
	n, _, err := unix.Recvfrom(control, buf, unix.MSG_DONTWAIT)
	if errors.Is(err, syscall.ECONNRESET) { // it left layers unread: told once, before its answer
		n, _, err = unix.Recvfrom(control, buf, unix.MSG_DONTWAIT)
	}
	var a answer
	if err != nil || n == 0 || json.Unmarshal(buf[:n], &a) != nil {
		return answer{}, false
	}
	return a, true
}

// codes are the errors that the process may answer. It has read hostile
// archives: its word is taken for nothing else.
var codes = []innerdock.Code{innerdock.CodeInvalid, innerdock.CodeTooLarge, innerdock.CodeExhausted}

func (a answer) failure() error {
	text := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, a.Message)
	if !slices.Contains(codes, a.Code) {
		return innerdock.Internal(errors.New(text), "unpacking the image")
	}
	return innerdock.Errorf(a.Code, "%s", text)
}
