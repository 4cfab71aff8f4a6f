package runtime

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares text with a file in testdata.
func golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; write it with: go test ./pkg/runtime -run %s -update", err, t.Name())
	}
	if text != string(want) {
		t.Errorf("%s differs; read the change, then accept it with -update. It is now:\n%s", path, text)
	}
}

func plainSpec() Spec {
	return Spec{
		ID: "abcdefghij23", Rootfs: "/data/images/1/root.erofs", Disk: 10 << 30, ScratchDir: "/data/scratch",
		Args: []string{"/.innerdock/innerdock-agent"}, Env: []string{"PATH=/usr/bin:/bin"},
		NetNS: "/run/netns/innerdock-abcdefghij23", CPU: 1.5, Memory: 1 << 30, PIDs: 16384,
		ControlDir: "/data/sandboxes/abcdefghij23/control", AgentDir: "/data/agent/1", BundleDir: "/data/sandboxes/abcdefghij23/bundle",
	}
}

func dockerSpec() Spec {
	s := plainSpec()
	s.Docker, s.DockerDir = true, "/data/sandboxes/abcdefghij23/docker"
	return s
}

func TestGoldenSpecs(t *testing.T) {
	unlimited := plainSpec()
	unlimited.Disk, unlimited.CPU, unlimited.Memory, unlimited.PIDs = 0, 0, 0, 0
	for name, s := range map[string]Spec{"spec-plain.json": plainSpec(), "spec-docker.json": dockerSpec(), "spec-unlimited.json": unlimited} {
		if err := s.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		text, err := json.MarshalIndent(ociSpec(s), "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, string(text)+"\n")
	}
}

func TestGoldenArgv(t *testing.T) {
	plain := RunscConfig{Path: "/usr/bin/runsc", Root: "/data/runsc"}
	debug := RunscConfig{Path: "/usr/bin/runsc", Root: "/data/runsc", Platform: "kvm", DebugLog: "/var/log/gvisor"}
	id := plainSpec().ID
	var text strings.Builder
	for _, line := range []struct {
		name string
		argv []string
	}{
		{"create", plain.createArgv(plainSpec(), "/data/log")},
		{"create with Docker", plain.createArgv(dockerSpec(), "/data/log")},
		{"create with another platform and debug logs", debug.createArgv(plainSpec(), "/data/log")},
		{"start", plain.argv("start", id)},
		{"restore", plain.restoreArgv(dockerSpec(), "/data/templates/1", "/data/log")},
		{"checkpoint", plain.checkpointArgv(id, "/data/templates/1", End)},
		{"checkpoint and go on", plain.checkpointArgv(id, "/data/templates/1", GoOn)},
		{"kill", plain.killArgv(id, syscall.SIGTERM)},
	} {
		text.WriteString(line.name + "\n\t" + strings.Join(line.argv, "\n\t") + "\n")
	}
	golden(t, "argv.txt", text.String())
}

// The seventeen of the specification, and not one more.
func TestCapabilities(t *testing.T) {
	if n := len(Capabilities(true)); n != 17 {
		t.Errorf("a sandbox with Docker has %d capabilities; want 17", n)
	}
	with := map[string]bool{}
	for _, c := range Capabilities(true) {
		with[c] = true
	}
	for _, c := range Capabilities(false) {
		if !with[c] {
			t.Errorf("%s is given without Docker, but not with it", c)
		}
		switch c {
		case "CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_MKNOD":
			t.Errorf("%s is given without Docker", c)
		}
	}
	Capabilities(true)[0] = "CAP_SYS_BOOT"
	if Capabilities(true)[0] == "CAP_SYS_BOOT" {
		t.Error("a caller can change the capabilities of all sandboxes")
	}
}
