package runtime

import (
	"cmp"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/innerdock/innerdock"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Where a sandbox sees the directories of its Spec.
const (
	controlMount = "/run/innerdock"
	agentMount   = "/.innerdock"
	dockerMount  = "/var/lib/docker"
	tmpMount     = "/tmp"
)

// The soft and hard limit of open files. Docker's --ulimit nofile needs the
// hard one; the soft one is smaller, because old programs close every descriptor
// that they could have, one by one. Both are limits inside the sandbox, kept by
// its kernel, and need no capability on the host.
const (
	softFiles = 65_536
	hardFiles = 1_048_576
)

// cpuPeriod is the scheduler's period in microseconds for the CPU quota.
const cpuPeriod = 100_000

// writeBundle writes the OCI bundle of a sandbox: config.json and an empty
// directory that stands for the root, which gVisor mounts from the EROFS file.
func writeBundle(s Spec) error {
	text, err := json.MarshalIndent(ociSpec(s), "", "  ")
	if err != nil {
		return innerdock.Internal(err, "encoding the OCI specification")
	}
	if err := os.MkdirAll(filepath.Join(s.BundleDir, "rootfs"), 0o700); err != nil {
		return innerdock.Internal(err, "making the bundle's directory")
	}
	for _, dir := range []string{s.ScratchDir, tmpDir(s), s.DockerDir} {
		if dir == "" {
			continue
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return innerdock.Internal(err, "making a directory for the sandbox's files")
		}
	}
	if err := os.WriteFile(filepath.Join(s.BundleDir, "config.json"), text, 0o600); err != nil {
		return innerdock.Internal(err, "writing the OCI specification")
	}
	return nil
}

// tmpDir holds the file behind a sandbox's /tmp.
func tmpDir(s Spec) string { return filepath.Join(s.BundleDir, "tmp") }

func ociSpec(s Spec) *specs.Spec {
	caps := slices.DeleteFunc(Capabilities(s.Docker), func(c string) bool { return c == s.WithoutCapability })
	return &specs.Spec{
		Version: "1.1.0",
		Process: &specs.Process{
			Args: s.Args,
			Env:  s.Env,
			Cwd:  "/",
			Capabilities: &specs.LinuxCapabilities{
				Bounding: caps, Effective: caps, Permitted: caps,
			},
			Rlimits: rlimits(s),
		},
		Root:        &specs.Root{Path: "rootfs"},
		Hostname:    cmp.Or(s.Hostname, s.ID),
		Mounts:      mounts(s),
		Annotations: annotations(s),
		Linux: &specs.Linux{
			CgroupsPath: CgroupPath(s.ID),
			Resources:   resources(s),
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.MountNamespace},
				{Type: specs.NetworkNamespace, Path: s.NetNS},
			},
		},
	}
}

// mounts returns what is mounted in a sandbox; all sandboxes have the same,
// but for Docker's data, because a checkpoint fits only its own layout.
//
// /tmp is there so that it is on disk and limited: without a mount of ours,
// gVisor puts a tmpfs in memory there, and a large download would use up the
// sandbox's memory.
func mounts(s Spec) []specs.Mount {
	list := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: shmOptions(s)},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: tmpMount, Type: "bind", Source: tmpDir(s), Options: []string{"rbind", "rw"}},
		{Destination: controlMount, Type: "bind", Source: s.ControlDir, Options: []string{"rbind", "ro", "nosuid", "nodev", "noexec"}},
		{Destination: agentMount, Type: "bind", Source: s.AgentDir, Options: []string{"rbind", "ro", "nosuid", "nodev"}},
	}
	if s.DockerDir != "" {
		list = append(list, specs.Mount{Destination: dockerMount, Type: "bind", Source: s.DockerDir, Options: []string{"rbind", "rw"}})
	}
	return list
}

// shmOptions limit /dev/shm to half of the sandbox's memory, as Linux would; by
// itself gVisor takes half of the host's.
func shmOptions(s Spec) []string {
	options := []string{"nosuid", "nodev", "mode=1777"}
	if shape := cmp.Or(s.Shape, s.Memory); shape > 0 {
		options = append(options, "size="+strconv.FormatInt(shape/2, 10))
	}
	return options
}

// annotations tell gVisor to mount the EROFS file as the root, with a writable
// layer in a file below ScratchDir, and to serve /tmp and Docker's data itself
// from sparse files. They stop growing when they have Disk together. A gVisor
// without our patches knows only of each one's own size.
func annotations(s Spec) map[string]string {
	const root, mount = "dev.gvisor.spec.rootfs.", "dev.gvisor.spec.mount."
	notes := map[string]string{
		root + "source":  s.Rootfs,
		root + "type":    "erofs",
		root + "overlay": "dir=" + s.ScratchDir,
	}
	if s.Disk > 0 {
		disk := strconv.FormatInt(s.Disk, 10)
		notes["dev.gvisor.spec.disk"] = disk
		notes[root+"options"] = "size=" + disk
	}
	inFile := func(name, dir, options string) {
		if s.Disk > 0 {
			options += ",size=" + strconv.FormatInt(s.Disk, 10)
		}
		notes[mount+name+".source"] = dir
		notes[mount+name+".type"] = "tmpfs"
		notes[mount+name+".share"] = "container"
		notes[mount+name+".options"] = options
	}
	inFile("tmp", tmpDir(s), "rw,mode=1777")
	if s.DockerDir != "" {
		inFile("docker", s.DockerDir, "rw")
	}
	return notes
}

// rlimits are those of PID 1, and so of all processes. The hard limit of tasks
// is open, for containers that are started with their own; root with
// CAP_SYS_ADMIN heeds neither, and the agent puts the same limit into a cgroup.
func rlimits(s Spec) []specs.POSIXRlimit {
	list := []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: softFiles, Hard: hardFiles}}
	if s.PIDs > 0 {
		list = append(list, specs.POSIXRlimit{Type: "RLIMIT_NPROC", Soft: uint64(tasks(s)), Hard: math.MaxUint64})
	}
	return list
}

// tasks is how many processes and threads may be in a sandbox. A process is up
// to two of the host's tasks, and gVisor's kernel gives up when the host refuses
// it one; and it takes about 200 KiB of the sandbox's memory, however small it
// is. Both must last.
func tasks(s Spec) int64 {
	const memory, least = 384 << 10, 512
	most := s.PIDs * 7 / 16
	if shape := cmp.Or(s.Shape, s.Memory); shape > 0 {
		most = min(most, max(shape/memory, least))
	}
	return most
}

// cpuQuota is for cores, in microseconds of a period.
func cpuQuota(cores float64) int64 { return max(int64(cores*cpuPeriod), 1000) }

// resources are limits of the host's cgroup, which holds the sandbox's kernel
// and its file server. There is no swap beyond the memory limit.
func resources(s Spec) *specs.LinuxResources {
	limits := &specs.LinuxResources{}
	if s.Memory > 0 {
		limits.Memory = &specs.LinuxMemory{Limit: &s.Memory, Swap: &s.Memory}
	}
	if s.CPU > 0 {
		period, quota := uint64(cpuPeriod), cpuQuota(s.CPU)
		limits.CPU = &specs.LinuxCPU{Period: &period, Quota: &quota}
	}
	if s.PIDs > 0 {
		limits.Pids = &specs.LinuxPids{Limit: &s.PIDs}
	}
	return limits
}
