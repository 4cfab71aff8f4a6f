package main

import (
	"strings"
	"syscall"
	"unsafe"
)

// setKey is the name by which dockerd's program knows that it is to tell of a
// network namespace.
const setKey = "libnetwork-setkey"

// file is what one file at a time is read into.
var file [1 << 20]byte

// redirected makes the hook of a bundle that starts dockerd's program start this
// one. It leaves alone what has none. A quotation mark inside of a string has a
// backslash before it, so no string can look like this hook.
func redirected(args []string) (why string) {
	const before, after = `"path":"`, `","args":["` + setKey + `"`
	var config, self name
	for i := range len(args) - 1 {
		if args[i] != "--bundle" {
			continue
		}
		if !config.join(args[i+1], "/config.json") {
			return ""
		}
		content, err := readFile(&config, file[:])
		if err == syscall.EFBIG {
			return "" // runc starts dockerd's program
		}
		if err != 0 {
			return "the bundle's config.json cannot be read"
		}
		end := strings.Index(content, after)
		if end < 0 {
			return ""
		}
		begin := strings.LastIndex(content[:end], before) + len(before)
		if !strings.HasPrefix(content[begin:end], "/proc/") || !executable(&self) {
			return ""
		}
		fd, err := open(&config, syscall.O_WRONLY|syscall.O_TRUNC)
		if err != 0 || !write(fd, content[:begin], self.String(), content[end:]) {
			return "the bundle's config.json cannot be written"
		}
		closed(fd)
		return ""
	}
	return ""
}

// executable is this program's own name.
func executable(n *name) bool {
	var link name
	if !link.join("/proc/self/exe") {
		return false
	}
	length, _, err := syscall.RawSyscall6(syscall.SYS_READLINKAT, here, uintptr(unsafe.Pointer(&link)), uintptr(unsafe.Pointer(n)), uintptr(len(n)-1), 0, 0)
	if err != 0 || length == 0 || length >= uintptr(len(n)-1) {
		return false
	}
	n[length] = 0
	return true
}

// tell does what dockerd's program does under the name setKey: args are
// -exec-root=DIR CONTAINER CONTROLLER, and the state that a runtime gives its
// hooks is what is read from in.
func tell(args []string, in uintptr) (why string) {
	if len(args) != 3 {
		return setKey + " takes dockerd's directory, a container and a controller"
	}
	root, ok := strings.CutPrefix(args[0], "-exec-root=")
	if !ok {
		return setKey + " takes -exec-root=DIR first"
	}
	if strings.ContainsAny(args[1], `"\`) {
		return "a container has another name"
	}
	state, err := read(in, file[:])
	if err != 0 {
		return "the container's state cannot be read"
	}
	_, after, _ := strings.Cut(state, `"pid":`)
	pid, _ := digits(after)
	if pid == "" {
		return "the container's state has no process"
	}
	var address struct {
		family uint16
		path   name // the kernel takes 108 bytes
	}
	address.family = syscall.AF_UNIX
	if !address.path.join(root, "/libnetwork/", args[2], ".sock") {
		return "dockerd's directory has too long a name"
	}
	length := 2 + len(address.path.String()) + 1
	fd, _, err := syscall.RawSyscall(syscall.SYS_SOCKET, syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != 0 {
		return "no socket can be had"
	}
	if _, _, err := syscall.RawSyscall(syscall.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&address)), uintptr(length)); err != 0 {
		return "dockerd does not listen for networks"
	}
	var message name // dockerd takes one packet of 1280 bytes
	if !message.join(`{"ContainerID":"`, args[1], `","Key":"/proc/`, pid, `/ns/net"}`, "\n") || !write(fd, message.String()) {
		return "dockerd cannot be told of a network"
	}
	n, _, err := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&file[0])), 1024)
	if err != 0 || n == 0 {
		return "dockerd does not answer"
	}
	if answer := unsafe.String(&file[0], int(n)); answer != "success" {
		return answer
	}
	return ""
}
