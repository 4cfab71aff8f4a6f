package main

import (
	"syscall"
	"unsafe"
)

// name is a file's name with a NUL after it, as the kernel wants it.
type name [1024]byte

// join makes it the parts, one after the other, and reports whether they fit and
// are a name.
func (n *name) join(parts ...string) bool {
	length := 0
	for _, part := range parts {
		if len(part) >= len(n)-length {
			return false
		}
		for i := range len(part) {
			if part[i] == 0 {
				return false
			}
			n[length] = part[i]
			length++
		}
	}
	n[length] = 0
	return true
}

// set reports whether there is a name.
func (n *name) set() bool { return n[0] != 0 }

// String is valid as long as n is.
func (n *name) String() string { return text(&n[0]) }

// text is what a NUL ends.
func text(first *byte) string {
	length := 0
	for *(*byte)(unsafe.Add(unsafe.Pointer(first), length)) != 0 {
		length++
	}
	return unsafe.String(first, length)
}

// here is the kernel's word for the working directory.
const here = ^uintptr(99) // AT_FDCWD, -100

// open opens a file; one that it creates everybody may read.
func open(n *name, flags uintptr) (fd uintptr, err syscall.Errno) {
	fd, _, err = syscall.RawSyscall6(syscall.SYS_OPENAT, here, uintptr(unsafe.Pointer(n)), flags|syscall.O_CLOEXEC, 0o644, 0, 0)
	return fd, err
}

func renamed(from, to *name) {
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RENAMEAT, here, uintptr(unsafe.Pointer(from)), here, uintptr(unsafe.Pointer(to)), 0, 0)
}

func closed(fd uintptr) { _, _, _ = syscall.RawSyscall(syscall.SYS_CLOSE, fd, 0, 0) }

// read reads as much as there is, and nothing where there is more than fits.
func read(fd uintptr, into []byte) (content string, err syscall.Errno) {
	length := 0
	for length < len(into) {
		n, _, err := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&into[length])), uintptr(len(into)-length))
		if err != 0 {
			return "", err
		}
		if n == 0 {
			return unsafe.String(&into[0], length), 0
		}
		length += int(n)
	}
	return "", syscall.EFBIG
}

func readFile(n *name, into []byte) (content string, err syscall.Errno) {
	fd, err := open(n, syscall.O_RDONLY)
	if err != 0 {
		return "", err
	}
	content, err = read(fd, into)
	closed(fd)
	return content, err
}

// write writes all of the parts.
func write(fd uintptr, parts ...string) bool {
	for _, part := range parts {
		for len(part) > 0 {
			n, _, err := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.StringData(part))), uintptr(len(part)))
			if err != 0 {
				return false
			}
			part = part[n:]
		}
	}
	return true
}

// fail says why the program fails.
func fail(why string) { write(2, "innerdock-runc: ", why, "\n") }

func stat(n *name, info *syscall.Stat_t) syscall.Errno {
	_, _, err := syscall.RawSyscall6(sysFstatat, here, uintptr(unsafe.Pointer(n)), uintptr(unsafe.Pointer(info)), 0, 0, 0)
	return err
}

// removed removes a file, or with removeDir an empty directory.
func removed(n *name, flags uintptr) syscall.Errno {
	_, _, err := syscall.RawSyscall(syscall.SYS_UNLINKAT, here, uintptr(unsafe.Pointer(n)), flags)
	return err
}

const removeDir = 0x200 // AT_REMOVEDIR

// digits is the number that a text begins with, and what follows it.
func digits(content string) (number, rest string) {
	length := 0
	for length < len(content) && length < 20 && '0' <= content[length] && content[length] <= '9' {
		length++
	}
	return content[:length], content[length:]
}
