package image

import (
	"strings"
	"testing"

	"github.com/innerdock/innerdock"
)

func TestPlan(t *testing.T) {
	docker := func(s innerdock.DockerSource) []innerdock.ImageStep {
		return []innerdock.ImageStep{{Docker: &innerdock.DockerInstall{Source: s}}}
	}
	for _, tc := range []struct {
		name string
		def  innerdock.ImageDefinition
		base string // or what the error says, after "!"
		args string // of the first step
	}{
		{"nothing", innerdock.ImageDefinition{}, "index.docker.io/library/python:3.11", ""},
		{"python", innerdock.ImageDefinition{PythonVersion: "python3.13"}, "index.docker.io/library/python:3.13", ""},
		{"patch release", innerdock.ImageDefinition{PythonVersion: "3.11.4"}, "index.docker.io/library/python:3.11.4", ""},
		{"short name", innerdock.ImageDefinition{BaseImage: "debian"}, "index.docker.io/library/debian:latest", ""},
		{"other registry", innerdock.ImageDefinition{BaseImage: "ghcr.io/a/b:c"}, "ghcr.io/a/b:c", ""},
		{"both", innerdock.ImageDefinition{BaseImage: "debian", PythonVersion: "3.11"}, "!both", ""},
		{"bad version", innerdock.ImageDefinition{PythonVersion: "python3.11; rm -rf /"}, "!python3.11", ""},
		{"bad reference", innerdock.ImageDefinition{BaseImage: "UPPER CASE"}, "!reference", ""},
		{"long reference", innerdock.ImageDefinition{BaseImage: strings.Repeat("x", 5000)}, "!reference", ""},
		{"bad env", innerdock.ImageDefinition{Env: map[string]string{"A=B": "c"}}, "!A=B", ""},
		{"zero byte in env", innerdock.ImageDefinition{Env: map[string]string{"A": "\x00"}}, "!environment", ""},
		{"large env", innerdock.ImageDefinition{Env: map[string]string{"A": strings.Repeat("x", 1<<20)}}, "!KiB", ""},
		{"command", innerdock.ImageDefinition{Steps: []innerdock.ImageStep{{Command: "echo $HOME"}}}, "index.docker.io/library/python:3.11", "/bin/sh|-c|echo $HOME"},
		{"packages", innerdock.ImageDefinition{Steps: []innerdock.ImageStep{{PythonPackages: []string{" requests==2.32.3 ", "a[b]>=1; python_version < '4'", "--extra-index-url https://x/simple"}}}},
			"index.docker.io/library/python:3.11",
			"python3|-m|pip|install|--no-cache-dir|--root-user-action=ignore|--disable-pip-version-check|requests==2.32.3|a[b]>=1; python_version < '4'|--extra-index-url|https://x/simple"},
		{"empty package", innerdock.ImageDefinition{Steps: []innerdock.ImageStep{{PythonPackages: []string{" "}}}}, "!empty", ""},
		{"no package", innerdock.ImageDefinition{Steps: []innerdock.ImageStep{{PythonPackages: []string{}}}}, "!exactly one", ""},
		{"empty step", innerdock.ImageDefinition{Steps: []innerdock.ImageStep{{}}}, "!exactly one", ""},
		{"two in one", innerdock.ImageDefinition{Steps: []innerdock.ImageStep{{Command: "x", PythonPackages: []string{"y"}}}}, "!exactly one", ""},
		{"zero byte", innerdock.ImageDefinition{Steps: []innerdock.ImageStep{{Command: "a\x00b"}}}, "!zero byte", ""},
		{"long command", innerdock.ImageDefinition{Steps: []innerdock.ImageStep{{Command: strings.Repeat("x", 1<<20)}}}, "!longer", ""},
		{"many steps", innerdock.ImageDefinition{Steps: make([]innerdock.ImageStep, 1000)}, "!256", ""},
		{"unknown docker source", innerdock.ImageDefinition{Steps: docker("floppy")}, "!floppy", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := newPlan(tc.def)
			if want, ok := strings.CutPrefix(tc.base, "!"); ok {
				if innerdock.CodeOf(err) != innerdock.CodeInvalid || !strings.Contains(err.Error(), want) {
					t.Fatalf("the error is %v, want %q", err, want)
				}
				if len(err.Error()) > 400 {
					t.Errorf("the message has %d bytes", len(err.Error()))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if p.base.Name() != tc.base {
				t.Errorf("the base is %s, want %s", p.base.Name(), tc.base)
			}
			if tc.args != "" && strings.Join(p.steps[0].Args, "|") != tc.args {
				t.Errorf("the command is %q, want %q", p.steps[0].Args, tc.args)
			}
		})
	}
	auto, err := newPlan(innerdock.ImageDefinition{Steps: docker("auto")})
	if err != nil {
		t.Fatal(err)
	}
	unset, err := newPlan(innerdock.ImageDefinition{Steps: docker("")})
	if err != nil {
		t.Fatal(err)
	}
	a, errA := auto.id(resolution{Source: "x"})
	b, errB := unset.id(resolution{Source: "x"})
	if a != b || errA != nil || errB != nil || !imageID.MatchString(a) {
		t.Errorf("the IDs are %s (%v) and %s (%v)", a, errA, b, errB)
	}
}
