package runtime

import (
	"cmp"
	"encoding/json"
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
			Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: softFiles, Hard: hardFiles}},
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
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "nodev", "mode=1777"}},
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

// annotations tell gVisor to mount the EROFS file as the root, with a writable
// layer in a file below ScratchDir, and to serve /tmp and Docker's data itself
// from sparse files. Each stops growing at Disk.
func annotations(s Spec) map[string]string {
	const root, mount = "dev.gvisor.spec.rootfs.", "dev.gvisor.spec.mount."
	notes := map[string]string{
		root + "source":  s.Rootfs,
		root + "type":    "erofs",
		root + "overlay": "dir=" + s.ScratchDir,
	}
	if s.Disk > 0 {
		notes[root+"options"] = "size=" + strconv.FormatInt(s.Disk, 10)
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

// resources are limits of the host's cgroup, which holds the sandbox's kernel
// and its file server. There is no swap beyond the memory limit.
func resources(s Spec) *specs.LinuxResources {
	limits := &specs.LinuxResources{}
	if s.Memory > 0 {
		limits.Memory = &specs.LinuxMemory{Limit: &s.Memory, Swap: &s.Memory}
	}
	if s.CPU > 0 {
		period, quota := uint64(cpuPeriod), max(int64(s.CPU*cpuPeriod), 1000)
		limits.CPU = &specs.LinuxCPU{Period: &period, Quota: &quota}
	}
	if s.PIDs > 0 {
		limits.Pids = &specs.LinuxPids{Limit: &s.PIDs}
	}
	return limits
}
