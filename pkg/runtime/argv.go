package runtime

import (
	"path/filepath"
	"strconv"
	"syscall"
)

// The command lines of runsc are made here and nowhere else. Every verb gets
// the root directory; what shapes a sandbox is said once, at its creation, and
// stays with its kernel.

// panicLog is where a dying sandbox kernel writes its last words, in the bundle.
const panicLog = "panic.log"

// pidFile is where runsc writes the kernel's process ID, in the bundle.
const pidFile = "sandbox.pid"

func (c RunscConfig) argv(verb string, args ...string) []string {
	return append([]string{"--root=" + c.Root, verb}, args...)
}

func (c RunscConfig) createArgv(s Spec, errorLog string) []string {
	argv := []string{
		"--root=" + c.Root,
		"--log=" + errorLog,
		"--panic-log=" + filepath.Join(s.BundleDir, panicLog),
		"--platform=" + c.platform(),
		"--network=sandbox",
		// The control socket is the only socket of the host in any mount, and
		// nothing else of the host can be opened through one.
		"--host-uds=open",
		"--host-fifo=none",
		"--character-device-policy=emulated-only",
		"--directfs=true",
		// The writable layer lies in a file of ScratchDir, not in memory.
		"--overlay2=root:dir=" + s.ScratchDir,
		// Set-user-ID programs (sudo, su) work. The ID that they gain is one of
		// the sandbox, and the bounding set still holds.
		"--allow-suid=true",
		"--host-settings=ignore",
		"--net-raw=" + strconv.FormatBool(s.Docker),
		"--allow-packet-socket-write=" + strconv.FormatBool(s.Docker),
	}
	if c.DebugLog != "" {
		argv = append(argv, "--debug", "--debug-log="+c.DebugLog+"/")
	}
	return append(argv, "create", "--bundle="+s.BundleDir, "--pid-file="+filepath.Join(s.BundleDir, pidFile), s.ID)
}

func (c RunscConfig) killArgv(id string, sig syscall.Signal) []string {
	return c.argv("kill", id, strconv.Itoa(int(sig)))
}

// platform is systrap unless configured: it needs nothing of the host, and KVM
// hangs on some virtual machines that offer /dev/kvm.
func (c RunscConfig) platform() string {
	if c.Platform == "" {
		return "systrap"
	}
	return c.Platform
}
