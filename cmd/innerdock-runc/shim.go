package main

import (
	"strings"
	"syscall"
	"unsafe"
)

// shim is containerd's program for runc's containers.
const shim = "containerd-shim-runc-v2"

// cleaned is the shim's clean-up after a container, which containerd asks for once
// more when the shim has ended. Where runc knows no such container any longer and
// nothing is mounted, all of it is the answer, which goes to out. It reports whether it was
// given; the shim is to see to everything else.
func cleaned(args []string, out uintptr) bool {
	var namespace, id, bundle string
	for len(args) > 1 {
		switch args[0] {
		case "-namespace":
			namespace = args[1]
		case "-id":
			id = args[1]
		case "-bundle":
			bundle = args[1]
		case "-address", "-publish-binary":
		default:
			return false
		}
		args = args[2:]
	}
	parent, found := strings.CutSuffix(bundle, id)
	if len(args) != 1 || args[0] != "delete" || namespace == "" || id == "" || !found || !strings.HasSuffix(parent, "/") {
		return false
	}
	var path name
	var options [4096]byte
	if !path.join(bundle, "/options.json") {
		return false
	}
	content, err := readFile(&path, options[:])
	if err != 0 {
		return false
	}
	_, root, found := strings.Cut(content, `"root":"`)
	root, _, closed := strings.Cut(root, `"`)
	if !found || !closed || root == "" || strings.Contains(root, `\`) {
		return false
	}
	var info, within syscall.Stat_t
	if !path.join(root, "/", namespace, "/", id) || stat(&path, &info) != syscall.ENOENT {
		return false
	}
	if !path.join(bundle) || stat(&path, &info) != 0 || !path.join(bundle, "/rootfs") {
		return false
	}
	if err := stat(&path, &within); err != syscall.ENOENT && (err != 0 || within.Dev != info.Dev) {
		return false
	}
	var number [32]byte
	if !path.join(bundle, "/init.pid") {
		return false
	}
	content, err = readFile(&path, number[:])
	pid, rest := digits(content)
	if err != 0 || pid == "" || len(pid) > 9 || rest != "" {
		return false
	}
	var now syscall.Timespec
	_, _, _ = syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, 0, uintptr(unsafe.Pointer(&now)), 0) // CLOCK_REALTIME
	return write(out, gone(pid, now))
}

// answer is what is made up to be written: an encoded DeleteResponse of at the most
// 40 bytes, or a version.
var answer [4096]byte

// gone is containerd's DeleteResponse of a container that was killed: the number
// of its first process, its exit code, and when.
func gone(pid string, at syscall.Timespec) string {
	const killed = 128 + 9
	number := uint64(0)
	for i := range len(pid) {
		number = number*10 + uint64(pid[i]-'0')
	}
	length := field(0, 1, number)
	length = field(length, 2, killed)
	answer[length] = 3<<3 | 2 // field 3 is a message
	size := length + 1
	length = field(size+1, 1, uint64(at.Sec))
	length = field(length, 2, uint64(at.Nsec))
	answer[size] = byte(length - size - 1)
	return unsafe.String(&answer[0], length)
}

// field encodes a number of a message at a place of the answer, and returns where
// it ends. Nothing is zero.
func field(at int, key byte, value uint64) (end int) {
	answer[at] = key << 3
	for at++; value >= 0x80; at++ {
		answer[at] = byte(value) | 0x80
		value >>= 7
	}
	answer[at] = byte(value)
	return at + 1
}
