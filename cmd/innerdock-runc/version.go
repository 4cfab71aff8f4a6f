package main

import (
	"strings"
	"syscall"
	"unsafe"
)

// dockerd asks runc for its version whenever it is asked for its own or for what it
// has, and each build asks dockerd three times. The answer is kept in a file beside
// the link by which the daemons find this program: runc's name, a new line, and what it
// said.

// asksVersion reports whether runc is asked for its version.
func asksVersion(args []string) bool {
	return len(args) == 2 && args[1] == "--version" && base(args[0]) == "runc"
}

// versionFile names the file. There is none where this program is not in PATH.
func versionFile(s *start, n *name) bool {
	var link name
	return found("runc", s.path, true, &link) && n.join(link.String(), ".version")
}

// answered says what that runc said of its version before, unless it has been replaced
// since.
func answered(kept, runc *name, out uintptr) bool {
	var then, now syscall.Stat_t
	if stat(kept, &then) != 0 || stat(runc, &now) != 0 ||
		now.Ctim.Sec > then.Mtim.Sec || now.Ctim.Sec == then.Mtim.Sec && now.Ctim.Nsec >= then.Mtim.Nsec {
		return false
	}
	content, err := readFile(kept, file[:])
	if err != 0 {
		return false
	}
	of, version, found := strings.Cut(content, "\n")
	return found && of == runc.String() && version != "" && write(out, version)
}

// keep writes the file, at once.
func keep(kept, runc *name, version string) {
	var temp name
	if len(runc.String())+1+len(version) > len(answer) || !temp.join(kept.String(), ".new") {
		return
	}
	length := copy(answer[:], runc.String())
	answer[length] = '\n'
	length += 1 + copy(answer[length+1:], version)
	fd, err := open(&temp, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_TRUNC)
	if err != 0 {
		return
	}
	if write(fd, unsafe.String(&answer[0], length)) {
		renamed(&temp, kept)
	}
	closed(fd)
}
