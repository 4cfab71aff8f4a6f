package runtime

import "slices"

// dockerCapabilities are the 17 that a sandbox with Docker has, and not one
// more. They are gVisor's to grant: none of them is a capability on the host.
var dockerCapabilities = []string{
	"CAP_AUDIT_WRITE",
	"CAP_CHOWN",
	"CAP_DAC_OVERRIDE",
	"CAP_FOWNER",
	"CAP_FSETID",
	"CAP_KILL",
	"CAP_MKNOD",
	"CAP_NET_ADMIN",
	"CAP_NET_BIND_SERVICE",
	"CAP_NET_RAW",
	"CAP_SETFCAP",
	"CAP_SETGID",
	"CAP_SETPCAP",
	"CAP_SETUID",
	"CAP_SYS_ADMIN",
	"CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE",
}

// plainCapabilities are those of a sandbox without Docker: what package
// managers, sudo and servers of ordinary images use. No raw sockets, no mounts.
var plainCapabilities = []string{
	"CAP_AUDIT_WRITE",
	"CAP_CHOWN",
	"CAP_DAC_OVERRIDE",
	"CAP_FOWNER",
	"CAP_FSETID",
	"CAP_KILL",
	"CAP_NET_BIND_SERVICE",
	"CAP_SETFCAP",
	"CAP_SETGID",
	"CAP_SETPCAP",
	"CAP_SETUID",
	"CAP_SYS_CHROOT",
}

// Capabilities returns what PID 1 of a sandbox may use, with or without Docker,
// in alphabetical order: its bounding, effective and permitted set.
func Capabilities(docker bool) []string {
	if docker {
		return slices.Clone(dockerCapabilities)
	}
	return slices.Clone(plainCapabilities)
}
