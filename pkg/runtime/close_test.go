package runtime

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Two first creations at a time mount runsc's empty network namespace twice.
func TestCloseUndoesEveryMount(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "null-netns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := unix.Mount("/proc/self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	}
	list := filepath.Join(t.TempDir(), "runsc") // knows of no sandbox
	if err := os.WriteFile(list, []byte("#!/bin/sh\necho null\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	r := &Runsc{config: RunscConfig{Path: list, Root: root}}
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
}
