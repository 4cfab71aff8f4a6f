package runtime_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/innerdock/innerdock/pkg/runtime"
	"github.com/innerdock/innerdock/pkg/runtime/runtimetest"
)

// launch creates and starts a sandbox, and returns a function that waits for
// what its guest tells.
func (h host) launch(t testing.TB, s runtime.Spec) (told func(any)) {
	t.Helper()
	told = runtimetest.Telling(t, s)
	t.Cleanup(func() { h.remove(t, s.ID) })
	if _, err := h.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	return told
}

// description is what the guest's verb describe tells.
type description struct {
	PID                        int
	Hostname, Raw, Packet      string
	Env, Mounts, Status, Stdio []string
	Interfaces                 []string
	Hard                       int
	Write                      map[string]string
}

func (d description) status(t *testing.T, key string) string {
	t.Helper()
	for _, line := range d.Status {
		if value, found := strings.CutPrefix(line, key+":\t"); found {
			return value
		}
	}
	t.Fatalf("/proc/self/status has no %s", key)
	return ""
}

// mask is the set of the capabilities as /proc/PID/status shows it.
func mask(capabilities ...string) string {
	number := map[string]int{
		"CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_FOWNER": 3, "CAP_FSETID": 4, "CAP_KILL": 5, "CAP_SETGID": 6,
		"CAP_SETUID": 7, "CAP_SETPCAP": 8, "CAP_NET_BIND_SERVICE": 10, "CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13,
		"CAP_SYS_CHROOT": 18, "CAP_SYS_PTRACE": 19, "CAP_SYS_ADMIN": 21, "CAP_MKNOD": 27, "CAP_AUDIT_WRITE": 29, "CAP_SETFCAP": 31,
	}
	var bits uint64
	for _, c := range capabilities {
		bits |= 1 << number[c]
	}
	return fmt.Sprintf("%016x", bits)
}

func TestInside(t *testing.T) {
	h := newHost(t)
	for _, docker := range []bool{false, true} {
		t.Run(fmt.Sprintf("docker=%t", docker), func(t *testing.T) {
			s := h.spec(t, "describe")
			s.Env = append(s.Env, "GREETING=hello world")
			if docker {
				s.Docker, s.DockerDir = true, filepath.Join(h.dir, "docker")
			}
			var d description
			h.launch(t, s)(&d)

			if d.PID != 1 || d.Hostname != s.ID || d.Hard != 1_048_576 {
				t.Errorf("PID %d, hostname %q, hard limit of open files %d", d.PID, d.Hostname, d.Hard)
			}
			if !slices.Contains(d.Env, "GREETING=hello world") {
				t.Errorf("the environment is %q", d.Env)
			}
			for _, set := range []string{"CapBnd", "CapEff", "CapPrm"} {
				if got, want := d.status(t, set), mask(runtime.Capabilities(docker)...); got != want {
					t.Errorf("%s is %s; want %s", set, got, want)
				}
			}
			if got := d.status(t, "CapInh"); got != mask() {
				t.Errorf("CapInh is %s; want none", got)
			}
			if raw := d.Raw == "" || d.Packet == ""; raw != docker {
				t.Errorf("raw socket: %q, packet socket: %q", d.Raw, d.Packet)
			}
			for dir, failure := range d.Write {
				want := map[string]string{"/run/innerdock": "read-only", "/.innerdock": "read-only"}[dir]
				if dir == "/var/lib/docker" && !docker {
					want = "no such file"
				}
				if (want == "") != (failure == "") || !strings.Contains(failure, want) {
					t.Errorf("writing into %s: %q; want %q", dir, failure, want)
				}
			}
			if len(d.Interfaces) > 0 {
				t.Errorf("the interfaces are %q; want none without a network namespace", d.Interfaces)
			}
			for _, file := range d.Stdio {
				if info, err := os.Stat(file); err == nil && !info.IsDir() && file != "/dev/null" {
					t.Errorf("a standard file is %s", file)
				}
			}
			t.Logf("mounts:\n%s", strings.Join(d.Mounts, "\n"))
		})
	}
}

// Everything in gVisor's kernel can be saved, what patches add to it included.
func TestASandboxCanBeSaved(t *testing.T) {
	h := newHost(t)
	s := h.spec(t, "sleep")
	s.Docker, s.DockerDir = true, filepath.Join(h.dir, "docker")
	h.launch(t, s)
	image := filepath.Join(h.dir, "image")
	if err := os.Mkdir(image, 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), runtimetest.Runsc(t), "--root", filepath.Join(h.dir, "runsc"),
		"checkpoint", "--image-path", image, s.ID).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %.2000s", err, out)
	}
	if files, err := os.ReadDir(image); err != nil || len(files) == 0 {
		t.Errorf("the image has %d files: %v", len(files), err)
	}
}

func TestNetworkNamespace(t *testing.T) {
	h := newHost(t)
	name := "idktest" + runtimetest.NewID()[:4]
	for _, args := range [][]string{
		{"netns", "add", name},
		{"-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", "eth1"},
		{"-n", name, "addr", "add", "10.255.255.2/30", "dev", "eth0"},
		{"-n", name, "link", "set", "eth0", "up"},
		{"-n", name, "link", "set", "lo", "up"},
		{"-n", name, "link", "set", "eth1", "up"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %q: %v\n%s", args, err, out)
		}
		if args[0] == "netns" {
			t.Cleanup(func() {
				if out, err := exec.Command("ip", "netns", "delete", name).CombinedOutput(); err != nil {
					t.Errorf("removing the network namespace: %v\n%s", err, out)
				}
			})
		}
	}
	s := h.spec(t, "describe")
	s.NetNS = "/run/netns/" + name
	var d description
	h.launch(t, s)(&d)
	if slices.Sort(d.Interfaces); !slices.Equal(d.Interfaces, []string{"eth0", "eth1", "lo"}) {
		t.Errorf("the interfaces are %q; want eth0, eth1 and lo", d.Interfaces)
	}
}

func TestWithoutCapability(t *testing.T) {
	h := newHost(t)
	s := h.spec(t, "describe")
	s.Docker, s.DockerDir, s.WithoutCapability = true, filepath.Join(h.dir, "docker"), "CAP_MKNOD"
	var d description
	h.launch(t, s)(&d)
	all := runtime.Capabilities(true)
	want := mask(slices.DeleteFunc(all, func(c string) bool { return c == "CAP_MKNOD" })...)
	if got := d.status(t, "CapBnd"); got != want {
		t.Errorf("CapBnd is %s; want %s", got, want)
	}
}

// Set-user-ID programs raise their user inside the sandbox: sudo and su work.
func TestSetUserID(t *testing.T) {
	h := newHost(t)
	var told struct{ Output, Error string }
	h.launch(t, h.spec(t, "become", runtimetest.GuestSUID, "whoami"))(&told)
	if told.Output != "0" || told.Error != "" {
		t.Errorf("a set-user-ID program runs as %q (%s); want 0", told.Output, told.Error)
	}
}

// Only sockets in the control directory exist for a sandbox; the other mounts
// hold none, and the host's file systems are not there at all.
func TestHostSockets(t *testing.T) {
	h := newHost(t)
	s := h.spec(t, "dial", "/run/innerdock/agent.sock", "/run/innerdock/other.sock", "/.innerdock/agent.sock", "/run/dbus/system_bus_socket", "/tmp/x.sock")
	other, err := net.Listen("unix", filepath.Join(h.dir, "scratch.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	told := h.launch(t, s)
	var result map[string]string
	told(&result)
	for path, failure := range result {
		if reachable := path == "/run/innerdock/agent.sock"; reachable != (failure == "") {
			t.Errorf("dialling %s: %q", path, failure)
		}
	}
}

func TestUpperTarContent(t *testing.T) {
	h := newHost(t)
	s := h.spec(t, "write", "/etc/new", "fresh", "/tmp/volatile", "gone")
	h.launch(t, s)(nil)
	var archive bytes.Buffer
	if err := h.UpperTar(t.Context(), s.ID, &archive); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(&archive); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(header.Name, "./")] = fmt.Sprintf("%c %s", header.Typeflag, content)
	}
	if files["etc/new"] != "0 fresh" {
		t.Errorf("etc/new is %q in the archive", files["etc/new"])
	}
	if _, found := files["tmp/volatile"]; found {
		t.Error("the archive holds a file of /tmp, which is a mount")
	}
	t.Logf("the archive holds %q", files)
}

// The sandbox outlives whoever created it, and another process finds it.
func TestSurvivesItsCreator(t *testing.T) {
	h := newHost(t)
	s := h.spec(t, "sleep")
	t.Cleanup(func() { h.remove(t, s.ID) })
	if _, err := h.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	state, err := h.State(t.Context(), s.ID)
	if err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", state.PID))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest) // state, ppid, pgrp, session
	if fields[1] == fmt.Sprint(os.Getpid()) || fields[3] == fmt.Sprint(os.Getpid()) || fields[3] != fmt.Sprint(state.PID) {
		t.Errorf("the sandbox's kernel has parent %s and session %s; want neither to be ours", fields[1], fields[3])
	}
}
