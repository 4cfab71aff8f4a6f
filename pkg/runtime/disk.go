package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Filestores are the files on the host's disk that hold what a sandbox writes. Not
// all have a name: they are measured through the descriptors of its kernel.
type Filestores struct {
	files map[string]os.FileInfo // by path in /proc
}

// filestoreNames are how their names begin: the root's, which the file system
// gives to a file without one, or runsc where that is not possible; the mounts'.
var filestoreNames = []string{"#", "runsc-filestore-", ".gvisor.filestore."}

// FindFilestores finds those of the sandbox whose kernel has the process ID.
func FindFilestores(pid int) (Filestores, error) {
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return Filestores{}, err
	}
	found := Filestores{files: map[string]os.FileInfo{}}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || !slices.ContainsFunc(filestoreNames, func(p string) bool { return strings.HasPrefix(filepath.Base(target), p) }) {
			continue
		}
		info, err := os.Stat(link)
		if err != nil {
			return Filestores{}, err
		}
		found.files[link] = info
	}
	if len(found.files) == 0 {
		return Filestores{}, fmt.Errorf("process %d holds no file of a sandbox's disk", pid)
	}
	return found, nil
}

// Size returns how much of the host's disk they take, in bytes; nothing when
// the sandbox has ended.
func (f Filestores) Size() (size int64) {
	for link, first := range f.files {
		info, err := os.Stat(link)
		if err != nil || !os.SameFile(info, first) {
			continue
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			size += stat.Blocks * 512
		}
	}
	return size
}

// Shed has the kernel drop what it caches of them and need not write. The first
// write after a restore makes it read as far ahead as the disk is set to, in each
// file, and nothing is there to read.
func (f Filestores) Shed() {
	for link, first := range f.files {
		file, err := os.Open(link)
		if err != nil {
			continue // the sandbox has ended
		}
		if info, err := file.Stat(); err == nil && os.SameFile(info, first) {
			_ = unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED) // advice
		}
		_ = file.Close()
	}
}
