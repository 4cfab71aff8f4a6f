package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheNextProgramIsFound(t *testing.T) {
	ours, theirs, neither, directory := t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()
	for file, mode := range map[string]os.FileMode{filepath.Join(theirs, "runc"): 0o700, filepath.Join(neither, "runc"): 0o600} {
		if err := os.WriteFile(file, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(directory, "runc"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/proc/self/exe", filepath.Join(ours, "runc")); err != nil {
		t.Fatal(err)
	}
	var got name
	if !found("runc", strings.Join([]string{"", ours, strings.Repeat("/long", 400), directory, neither, theirs, ours}, ":"), false, &got) || got.String() != filepath.Join(theirs, "runc") {
		t.Errorf("%q", got.String())
	}
	if found("runc", ours+":"+neither, false, &got) {
		t.Errorf("without one, it is %q", got.String())
	}
	if !found("runc", theirs+":"+ours, true, &got) || got.String() != filepath.Join(ours, "runc") {
		t.Errorf("this one is %q", got.String())
	}
}
