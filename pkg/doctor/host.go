package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const gib = 1 << 30

// The least that a server starts with, and what is comfortable for some images
// and a few sandboxes.
const (
	leastDisk       = 2 * gib
	comfortableDisk = 20 * gib
)

func geteuid() int { return os.Geteuid() }

func (m machine) root(context.Context) Check {
	if m.uid != 0 {
		return fail("root", fmt.Sprintf("user %d cannot make network namespaces and cgroups", m.uid), "sudo innerdock doctor")
	}
	return ok("root", "yes")
}

// kernel wants Linux 5.4: pidfds can be waited for since then.
func (m machine) kernel(context.Context) Check {
	text, err := os.ReadFile(filepath.Join(m.proc, "sys/kernel/osrelease"))
	if err != nil {
		return fail("kernel", err.Error(), "run innerdock on Linux, with /proc mounted")
	}
	release := strings.TrimSpace(string(text))
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil || major < 5 || major == 5 && minor < 4 {
		return fail("kernel", "Linux "+release+" is older than 5.4", "install a newer kernel")
	}
	if !slices.Contains([]string{"amd64", "arm64"}, runtime.GOARCH) {
		return fail("kernel", "gVisor does not run on "+runtime.GOARCH, "use a machine with an amd64 or arm64 processor")
	}
	return ok("kernel", "Linux "+release+" "+runtime.GOARCH)
}

// controllers bind a sandbox's resources on the host.
var controllers = []string{"cpu", "memory", "pids"}

// cgroup wants the controllers of version 2, or their hierarchies of version 1,
// and makes a cgroup in each hierarchy.
func (m machine) cgroup(context.Context) Check {
	const mend = "mount -t cgroup2 none /sys/fs/cgroup   # or boot with systemd.unified_cgroup_hierarchy=1"
	version, dirs, missing := m.hierarchies()
	if len(missing) > 0 {
		return fail("cgroups", version+" without "+strings.Join(missing, ", "), mend)
	}
	for _, dir := range dirs {
		probe, err := os.MkdirTemp(dir, "innerdock-doctor-")
		if err == nil {
			err = os.Remove(probe)
		}
		if err != nil {
			return fail("cgroups", version+", and none can be made: "+err.Error(), "mount -o remount,rw "+dir)
		}
	}
	return ok("cgroups", version+" with "+strings.Join(controllers, ", "))
}

func (m machine) hierarchies() (version string, dirs, missing []string) {
	if text, err := os.ReadFile(filepath.Join(m.cgroups, "cgroup.controllers")); err == nil {
		offered := strings.Fields(string(text))
		for _, name := range controllers {
			if !slices.Contains(offered, name) {
				missing = append(missing, name)
			}
		}
		return "version 2", []string{m.cgroups}, missing
	}
	for _, name := range controllers {
		dir := filepath.Join(m.cgroups, name)
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
			missing = append(missing, name)
		}
		dirs = append(dirs, dir)
	}
	return "version 1", dirs, missing
}

// limits: dockerd in a sandbox wants many files and the server a few for each
// sandbox; with CAP_SYS_RESOURCE it can raise its own limit and protect itself
// from the kernel's out-of-memory killer.
func (m machine) limits(context.Context) Check {
	const wanted = 65536
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return fail("limits", "getrlimit: "+err.Error(), "ulimit -Hn 1048576")
	}
	capable, err := m.capable(unix.CAP_SYS_RESOURCE)
	switch {
	case err != nil:
		return fail("limits", err.Error(), "mount -t proc proc /proc")
	case files.Max < wanted && !capable:
		return warn("limits", fmt.Sprintf("%d open files at most, which is little for many sandboxes", files.Max),
			"ulimit -Hn 1048576   # or LimitNOFILE=1048576 in the service")
	case !capable:
		return warn("limits", "without CAP_SYS_RESOURCE the out-of-memory killer may choose the server itself",
			"start the server with CAP_SYS_RESOURCE in its bounding set; it works without, too")
	}
	return ok("limits", fmt.Sprintf("%d open files, CAP_SYS_RESOURCE", files.Max))
}

// capable reports whether this process has a capability in effect.
func (m machine) capable(capability int) (bool, error) {
	text, err := os.ReadFile(filepath.Join(m.proc, "self/status"))
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, "CapEff:"); found {
			set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			return set>>capability&1 == 1, err
		}
	}
	return false, errors.New("/proc/self/status names no capabilities")
}

func mmdebstrap(context.Context) Check {
	path, err := exec.LookPath("mmdebstrap")
	if err != nil {
		return warn("mmdebstrap", "not in PATH: Python images cannot be made where no registry is reachable",
			"apt-get install mmdebstrap debian-archive-keyring")
	}
	return ok("mmdebstrap", path)
}

// unfit are file systems that lose images or hold them badly.
var unfit = map[int64]string{
	unix.TMPFS_MAGIC:           "tmpfs, which is memory",
	unix.NFS_SUPER_MAGIC:       "NFS",
	unix.OVERLAYFS_SUPER_MAGIC: "overlayfs, which a container may lose",
}

// disk wants room where the data directory is or will be.
func disk(dir string) func(context.Context) Check {
	return func(context.Context) Check {
		at := dir
		var stat unix.Statfs_t
		for {
			err := unix.Statfs(at, &stat)
			if err == nil {
				break
			}
			if !errors.Is(err, unix.ENOENT) || at == filepath.Dir(at) {
				return fail("disk", at+": "+err.Error(), "start the server with another --data directory")
			}
			at = filepath.Dir(at)
		}
		free := stat.Bavail * uint64(stat.Bsize)
		detail := fmt.Sprintf("%.1f GiB free for %s", float64(free)/gib, dir)
		const mend = "free some, or start the server with --data on a larger disk"
		switch kind := unfit[stat.Type]; {
		case free < leastDisk:
			return fail("disk", detail, mend)
		case kind != "":
			return warn("disk", detail+", on "+kind, "start the server with --data on a local disk")
		case free < comfortableDisk:
			return warn("disk", detail, mend)
		case stat.Files > 0 && stat.Ffree < 10_000:
			return warn("disk", fmt.Sprintf("%s, and only %d more files", detail, stat.Ffree), mend)
		}
		return ok("disk", detail)
	}
}
