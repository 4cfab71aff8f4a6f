package durable_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/innerdock/innerdock/pkg/durable"
)

// What was written under a temporary name is found under its own, and what was not
// published goes.
func TestPublishAndSweep(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		draft := durable.Draft(dir, name)
		if err := os.Mkdir(draft, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(draft, "file"), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := durable.SyncTree(durable.Draft(dir, "a")); err != nil {
		t.Fatal(err)
	}
	if err := durable.Publish(durable.Draft(dir, "a"), filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	if err := durable.Sweep(dir, func(name string) bool { return name == "a" }); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*", "file"))
	if want := []string{filepath.Join(dir, "a", "file")}; err != nil || !slices.Equal(left, want) {
		t.Errorf("left are %q, %v; not %q", left, err, want)
	}
}

// A failure is told: nothing passes for kept that is not.
func TestWhatIsNotThereIsNotKept(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	for what, err := range map[string]error{
		"a synced file": durable.Sync(missing), "a synced directory": durable.SyncTree(missing), "a published one": durable.Publish(missing, missing+"2"),
		"a swept one": durable.Sweep(missing, func(string) bool { return true }),
	} {
		if err == nil {
			t.Errorf("%s is not there, and nothing says so", what)
		}
	}
}
