package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// cleanedBundle makes the bundle of a container that runc, whose directory is
// root, does not know any longer, and the arguments with which containerd asks for
// its clean-up.
func cleanedBundle(t *testing.T, root string) (bundle string, args []string) {
	t.Helper()
	bundle = filepath.Join(t.TempDir(), id)
	if err := os.MkdirAll(filepath.Join(bundle, "rootfs"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"options.json": `{"binary_name":"runc","root":"` + root + `"}`, "init.pid": "4711"} {
		if err := os.WriteFile(filepath.Join(bundle, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return bundle, []string{"-namespace", "moby", "-address", "/run/containerd/containerd.sock", "-publish-binary", "/usr/bin/containerd",
		"-id", id, "-bundle", bundle, "delete"}
}

// clean is what cleaned answers.
func clean(t *testing.T, args []string) (answer string, ok bool) {
	t.Helper()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	ok = cleaned(args, out.Fd())
	out.Close()
	said, err := io.ReadAll(in)
	if err != nil {
		t.Fatal(err)
	}
	return string(said), ok
}

func TestWhatIsCleanedUpIsAnswered(t *testing.T) {
	_, args := cleanedBundle(t, t.TempDir())
	answer, ok := clean(t, args)
	if !ok || !strings.HasPrefix(answer, "\x08\xe7\x24\x10\x89\x01\x1a") || len(answer) != 8+int(answer[7]) {
		t.Fatalf("%q, %t", answer, ok)
	}
	// The time: its seconds are field 1, in five bytes of seven bits.
	seconds := int64(0)
	for i := range 5 {
		seconds |= int64(answer[9+i]&0x7f) << (7 * i)
	}
	if since := time.Since(time.Unix(seconds, 0)); answer[8] != 0x08 || since < 0 || since > time.Minute {
		t.Errorf("%q is %v ago", answer, since)
	}
	if got := gone("1", syscall.Timespec{Sec: 1, Nsec: 300}); got != "\x08\x01\x10\x89\x01\x1a\x05\x08\x01\x10\xac\x02" {
		t.Errorf("%q", got)
	}
}

func TestWhatIsNotCleanIsLeftToTheShim(t *testing.T) {
	write := func(file, content string) {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, change := range map[string]func(root, bundle string){
		"runc knows it": func(root, _ string) {
			if err := os.MkdirAll(filepath.Join(root, "moby", id), 0o700); err != nil {
				t.Fatal(err)
			}
		},
		"something is mounted": func(_, bundle string) {
			rootfs := filepath.Join(bundle, "rootfs")
			if err := syscall.Mount("tmpfs", rootfs, "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = syscall.Unmount(rootfs, 0) })
		},
		"there are no options":   func(_, bundle string) { write(bundle+"/options.json", "") },
		"they name no directory": func(_, bundle string) { write(bundle+"/options.json", `{"root":""}`) },
		"they name an odd one":   func(_, bundle string) { write(bundle+"/options.json", `{"root":"\u002fx"}`) },
		"its number is none":     func(_, bundle string) { write(bundle+"/init.pid", "x") },
		"its number is too long": func(_, bundle string) { write(bundle+"/init.pid", "12345678901234567890") },
		"it has none":            func(_, bundle string) { _ = os.Remove(bundle + "/init.pid") },
	} {
		root := t.TempDir()
		bundle, args := cleanedBundle(t, root)
		change(root, bundle)
		if answer, ok := clean(t, args); ok || answer != "" {
			t.Errorf("%s, and the answer is %q", name, answer)
		}
	}
	_, args := cleanedBundle(t, t.TempDir())
	for _, args := range [][]string{
		nil, {"delete"}, {"-info"}, args[:len(args)-1], args[2:], append(slices.Clone(args), "x"), slices.Concat([]string{"-debug"}, args),
		slices.Concat(args[:8], []string{"-bundle", "/elsewhere", "delete"}), slices.Concat(args[:len(args)-1], []string{"start"}),
	} {
		if answer, ok := clean(t, args); ok || answer != "" {
			t.Errorf("%q is answered: %q", args, answer)
		}
	}
}
