package unpack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
)

// What the process may use, whatever the image.
const (
	maxTime  = 20 * time.Minute // of computing
	maxHeap  = 192 << 20        // bytes that the collector keeps to; names and buffers are less
	maxData  = 1 << 30          // bytes of address space for data: the end of all mistakes
	maxFiles = 64
	nobody   = 65534
)

// init is the process. Wherever this package is linked into, tests included, the
// program is the process when it is started under its name.
func init() {
	if len(os.Args) != 1 || os.Args[0] != processName {
		return
	}
	err := serve()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serve() error {
	if err := closeOthers(); err != nil {
		return err
	}
	first, _, err := take()
	if err != nil {
		return err
	}
	if first.Limits == nil {
		return errors.New("no limits")
	}
	status, err := os.Open("/proc/self/status")
	if err != nil {
		return err
	}
	if err := confine(*first.Limits); err != nil {
		return err
	}
	image := New(os.NewFile(outputFD, "image"), *first.Limits)
	a := answer{}
	if err := image.take(); errors.Is(err, errGivenUp) {
		return err
	} else if err != nil {
		if a.Code = innerdock.CodeOf(err); a.Code == "" {
			a.Code = innerdock.CodeInternal
		}
		if a.Message = err.Error(); len(a.Message) > maxAnswer/8 {
			a.Message = a.Message[:maxAnswer/8]
		}
	}
	a.Dropped, a.Memory = image.Dropped(), peak(status)
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return retry(func() error { return unix.Sendmsg(controlFD, data, nil, nil, unix.MSG_NOSIGNAL) })
}

// closeOthers closes what the server was started with and has not closed itself.
// Go's own descriptors stay.
func closeOthers() error {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= outputFD {
			continue
		}
		if link, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && !strings.HasPrefix(link, "anon_inode:[event") {
			_ = unix.Close(fd)
		}
	}
	return nil
}

// peak is how much memory the process has had, in bytes.
func peak(status io.Reader) int64 {
	text, _ := io.ReadAll(status) // unknown, then
	_, text, _ = bytes.Cut(text, []byte("VmHWM:"))
	var n int64
	_, _ = fmt.Sscan(string(text), &n)
	return n << 10
}

// take applies layers as they come.
func (m *Image) take() error {
	ctx := context.Background() //nolint:forbidigo // killed from outside when it shall end
	for {
		msg, blob, err := take()
		switch {
		case err != nil:
			return err
		case msg.End:
			return m.Finish()
		case blob == nil:
			return errors.New("a layer without a blob")
		}
		if err := errors.Join(m.ApplyBlob(ctx, blob, msg.DiffID), blob.Close()); err != nil {
			return err
		}
	}
}

var errGivenUp = errors.New("the server gave up")

// take waits for a message.
func take() (m message, blob *os.File, err error) {
	buf, rights := make([]byte, 4<<10), make([]byte, unix.CmsgSpace(4))
	var n, more int
	err = retry(func() error {
		n, more, _, _, err = unix.Recvmsg(controlFD, buf, rights, unix.MSG_CMSG_CLOEXEC)
		return err
	})
	if err != nil {
		return m, nil, err
	}
	if n == 0 {
		return m, nil, errGivenUp
	}
	if more > 0 {
		messages, err := unix.ParseSocketControlMessage(rights[:more])
		if err != nil || len(messages) != 1 {
			return m, nil, errors.Join(err, errors.New("a strange message"))
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			return m, nil, errors.Join(err, errors.New("a strange message"))
		}
		blob = os.NewFile(uintptr(fds[0]), "layer")
	}
	return m, blob, json.Unmarshal(buf[:n], &m)
}

// confine gives up all that unpacking does not need. It runs before the first
// byte of an archive is read.
func confine(limits Limits) error {
	signal.Ignore(syscall.SIGXFSZ) // writing too much is an error then
	debug.SetMemoryLimit(maxHeap)
	debug.SetGCPercent(50)
	if err := leaveFiles(); err != nil {
		return fmt.Errorf("leaving the file system: %w", err)
	}
	// Directories and inodes come on top of contents.
	output := uint64(limits.Bytes + 8*limits.Memory + 1<<20)
	for _, l := range []struct {
		resource int
		most     uint64
	}{
		{unix.RLIMIT_CPU, uint64(maxTime / time.Second)},
		{unix.RLIMIT_FSIZE, output},
		{unix.RLIMIT_DATA, maxData},
		{unix.RLIMIT_NOFILE, maxFiles},
		{unix.RLIMIT_CORE, 0},
		{unix.RLIMIT_MEMLOCK, 0},
		{unix.RLIMIT_MSGQUEUE, 0},
	} {
		if err := unix.Setrlimit(l.resource, &unix.Rlimit{Cur: l.most, Max: l.most}); err != nil {
			return fmt.Errorf("limiting resource %d: %w", l.resource, err)
		}
	}
	// For all threads; the capabilities go with user 0.
	if err := errors.Join(syscall.Setgroups([]int{}), syscall.Setresgid(nobody, nobody, nobody), syscall.Setresuid(nobody, nobody, nobody)); err != nil {
		return fmt.Errorf("becoming nobody: %w", err)
	}
	// Another user's child is not killed with its parent any more, unless it asks again.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	return filterCalls()
}

// leaveFiles makes an empty directory the root, in a mount namespace in which
// nothing else is mounted any more.
func leaveFiles() error {
	const at = "/proc" // a directory that is everywhere
	if err := unix.Mount("none", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=4k,mode=0"); err != nil {
		return err
	}
	if err := unix.Chdir(at); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return unix.Chroot(".") // where the root is the kernel's first one, which cannot be left
	}
	return errors.Join(unix.Unmount(".", unix.MNT_DETACH), unix.Chdir("/"),
		unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""))
}
