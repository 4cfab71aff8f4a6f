package unpack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock/pkg/image/child"
)

// probeName makes the test's program try what a broken unpacker might.
const probeName = "innerdock-unpack-probe"

func init() {
	if os.Args[0] == probeName {
		os.Exit(probe())
	}
}

// probe gives everything up as the process does, and then tries to get it back.
func probe() int {
	limits := DefaultLimits()
	limits.Bytes, limits.Memory = 1<<20, 1<<10
	before, err := os.Open("/etc") // of no use to the process, which has none
	if err == nil {
		err = confine(limits)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	results := map[string]string{}
	try := func(what string, err error) { results[what] = fmt.Sprint(err) }
	_, err = os.ReadFile("/etc/passwd")
	try("read a file", err)
	_, err = unix.Openat(int(before.Fd()), "passwd", unix.O_RDONLY, 0)
	try("read a file below a directory that is open", err)
	try("make a file", os.WriteFile("/x", nil, 0o600))
	try("make a device", unix.Mknod("/cuse", unix.S_IFCHR, 10<<8|203))
	_, err = net.Dial("tcp", "127.0.0.1:1")
	try("dial", err)
	_, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	try("make a socket", err)
	_, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno == 0 {
		try("fork", nil)
	} else {
		try("fork", errno)
	}
	try("execute", exec.Command("/proc/self/exe").Run())
	try("mount", unix.Mount("none", "/", "tmpfs", 0, ""))
	try("become root", unix.Setuid(0))
	try("leave a namespace", unix.Unshare(unix.CLONE_NEWUSER))
	try("kill", unix.Kill(-1, unix.SIGKILL))
	try("trace", unix.PtraceAttach(1))
	out := os.NewFile(outputFD, "out")
	_, err = out.WriteAt([]byte("x"), 64<<20)
	try("write much", err)
	results["user"] = fmt.Sprint(unix.Getpid()) // reading it is allowed
	_ = json.NewEncoder(os.Stdout).Encode(results)
	return 0
}

// TestConfined has the process try to do what it must not, and looks at it from
// outside while it works.
func TestConfined(t *testing.T) {
	needRoot(t)
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args, cmd.Env, cmd.ExtraFiles = []string{probeName}, []string{}, []*os.File{out, out}
	cmd.SysProcAttr = namespaces()
	said, err := child.Output(t.Context(), cmd)
	if err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	results := map[string]string{}
	if err := json.Unmarshal([]byte(said), &results); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	if len(results) != 15 || results["user"] != "1" {
		t.Errorf("the results are %q; it is not the first process of its namespace", results)
	}
	for what, got := range results {
		want := "operation not permitted"
		switch what {
		case "user":
			continue
		case "write much":
			want = "file too large"
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: %s; want %s", what, got, want)
		}
	}
}

// TestPosture looks from outside at a process that waits for a layer.
func TestPosture(t *testing.T) {
	needRoot(t)
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	enough := errors.New("seen enough")
	_, err = Process(t.Context(), out, DefaultLimits(), func(ctx context.Context) (*Layer, error) {
		pid := waitConfined(ctx, t)
		checkPosture(t, fmt.Sprintf("/proc/%d", pid))
		return nil, enough
	})
	if !errors.Is(err, enough) {
		t.Errorf("the error is %v", err)
	}
}

// waitConfined returns the PID of the process, once its system calls are filtered.
func waitConfined(ctx context.Context, t *testing.T) int {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		files, err := filepath.Glob("/proc/self/task/*/children")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			children, _ := os.ReadFile(file) // of a thread that has ended
			for _, child := range strings.Fields(string(children)) {
				status, _ := os.ReadFile("/proc/" + child + "/status")
				pid, err := strconv.Atoi(child)
				if err == nil && strings.Contains(string(status), "Seccomp:\t2") {
					return pid
				}
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Error("no process was confined")
			return 0
		}
	}
}

func checkPosture(t *testing.T, proc string) {
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		t.Error(err)
	}
	for _, want := range []string{
		"Uid:\t65534\t65534\t65534\t65534\n", "Gid:\t65534\t65534\t65534\t65534\n", "Groups:\t \n", "CapInh:\t0000000000000000\n",
		"CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n", "CapAmb:\t0000000000000000\n", "NoNewPrivs:\t1\n",
	} {
		if !strings.Contains(string(status), want) {
			t.Errorf("the process's status has no line %q:\n%s", want, status)
		}
	}
	for _, name := range []string{"net", "mnt", "pid", "ipc", "uts"} {
		theirs, err := os.Readlink(proc + "/ns/" + name)
		ours, oerr := os.Readlink("/proc/self/ns/" + name)
		if err != nil || oerr != nil || theirs == ours {
			t.Errorf("the process has the %s namespace %s, ours is %s (%v)", name, theirs, ours, errors.Join(err, oerr))
		}
	}
	mounts, err := os.ReadFile(proc + "/mounts")
	if err != nil || strings.Count(string(mounts), "\n") != 1 || !strings.Contains(string(mounts), " / tmpfs ro,") {
		t.Errorf("the process sees the mounts %q, %v", mounts, err)
	}
	fds, err := os.ReadDir(proc + "/fd")
	if err != nil || len(fds) > 8 { // the standard ones, the socket, the image, and Go's poller
		t.Errorf("the process has the files %v, %v", fds, err)
	}
}
