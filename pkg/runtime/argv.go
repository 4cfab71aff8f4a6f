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
	return append(c.shapeArgv(s, errorLog), "create", "--bundle="+s.BundleDir, "--pid-file="+filepath.Join(s.BundleDir, pidFile), s.ID)
}

// restoreArgv makes a sandbox and starts it from a checkpoint by one command.
// Memory that is not needed at once is read while the sandbox runs already.
func (c RunscConfig) restoreArgv(s Spec, dir, errorLog string) []string {
	argv := c.shapeArgv(s, errorLog)
	if s.Moved { // gVisor compares paths too
		argv = append(argv, "--restore-spec-validation=warning")
	}
	return append(argv, "restore", "--bundle="+s.BundleDir, "--pid-file="+filepath.Join(s.BundleDir, pidFile),
		"--image-path="+dir, "--detach", "--background", s.ID)
}

// checkpointArgv leaves the memory uncompressed: only so can a restore read it
// in the background.
func (c RunscConfig) checkpointArgv(id, dir string, then After) []string {
	args := []string{"--image-path=" + dir, "--compression=none", "--exclude-committed-zero-pages"}
	if then == GoOn {
		args = append(args, "--leave-running")
	}
	return c.argv("checkpoint", append(args, id)...)
}

// shapeArgv are the options that shape a sandbox. They are the same for a
// checkpoint's sandbox and for those that are restored from it.
func (c RunscConfig) shapeArgv(s Spec, errorLog string) []string {
	argv := []string{
		"--root=" + c.Root,
		"--log=" + errorLog,
		"--panic-log=" + filepath.Join(s.BundleDir, panicLog),
		"--platform=" + c.platform(),
		// The kernel and the program's threads sleep while they wait for each
		// other instead of spinning: a sandbox has few cores, and shares them.
		"--systrap-disable-fast-path=true",
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
	return argv
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
