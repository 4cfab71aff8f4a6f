package unpack

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

var archCalls = []uintptr{unix.SYS_SYNC_FILE_RANGE}
