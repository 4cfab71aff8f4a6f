package runtime_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock/pkg/runtime"
	"github.com/innerdock/innerdock/pkg/runtime/runtimetest"
)

// What the kernel has read of a sandbox's disk for nothing goes, and what the
// sandbox wrote there stays.
func TestShed(t *testing.T) {
	h := newHost(t)
	dir, before := h.checkpointed(t)
	s := h.remembering(t)
	told := runtimetest.Telling(t, s)
	t.Cleanup(func() { h.remove(t, s.ID) })
	pid, err := h.Restore(t.Context(), s, dir)
	if err != nil {
		t.Fatal(err)
	}
	var early, after memory
	told(&early)
	stores, err := runtime.FindFilestores(pid)
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(s.DockerDir + "/.gvisor.filestore.*")
	if err != nil || len(paths) != 1 {
		t.Fatalf("filestores: %q, %v", paths, err)
	}
	file, err := os.Open(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	const part = 16 * mebibyte
	if _, err := io.CopyN(io.Discard, file, part); err != nil {
		t.Fatal(err)
	}
	if got := cached(t, file, part); got < part/2 {
		t.Fatalf("the kernel caches %d bytes of what was just read", got)
	}
	stores.Shed()
	if got := cached(t, file, part); got > part/4 {
		t.Errorf("the kernel still caches %d bytes", got)
	}
	told(&after)
	if after.Files["/var/lib/docker/file"] != before.Memory {
		t.Errorf("Docker's data holds %q; want %q", after.Files["/var/lib/docker/file"], before.Memory)
	}
}

// The file of a sandbox's root never has a name that a killed runsc could leave.
func TestNoNamedFilestore(t *testing.T) {
	h := newHost(t)
	s := h.spec(t, "sleep")
	if err := os.MkdirAll(s.ScratchDir, 0o700); err != nil {
		t.Fatal(err)
	}
	notices, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(notices)
	if _, err := unix.InotifyAddWatch(notices, s.ScratchDir, unix.IN_CREATE); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.remove(t, s.ID) })
	pid, err := h.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	if n, err := unix.Read(notices, buf); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("files were made in the directory: %q, %v", buf[:max(n, 0)], err)
	}
	if _, err := runtime.FindFilestores(pid); err != nil {
		t.Error(err)
	}
}

// cached is how much of a file's first n bytes the kernel has in memory.
func cached(t *testing.T, file *os.File, n int) (bytes int) {
	t.Helper()
	mapped, err := unix.Mmap(int(file.Fd()), 0, n, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(mapped) }()
	pages := make([]byte, (n+os.Getpagesize()-1)/os.Getpagesize())
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mapped[0])), uintptr(n), uintptr(unsafe.Pointer(&pages[0]))); errno != 0 {
		t.Fatal(errno)
	}
	for _, page := range pages {
		bytes += int(page&1) * os.Getpagesize()
	}
	return bytes
}
