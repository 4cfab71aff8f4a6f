package image

import (
	"slices"
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
			"python3|-m|pip|install|--root-user-action=ignore|--disable-pip-version-check|--no-cache-dir|requests==2.32.3|a[b]>=1; python_version < '4'|--extra-index-url|https://x/simple"},
		{"empty package", innerdock.ImageDefinition{Steps: []innerdock.ImageStep{{PythonPackages: []string{" "}}}}, "!no Python package", ""},
		{"no package", innerdock.ImageDefinition{Steps: []innerdock.ImageStep{{PythonPackages: []string{}}}}, "!exactly one", ""},
		{"empty step", innerdock.ImageDefinition{Steps: []innerdock.ImageStep{{}}}, "!exactly one", ""},
		{"two in one", innerdock.ImageDefinition{Steps: []innerdock.ImageStep{{Command: "x", PythonPackages: []string{"y"}}}}, "!exactly one", ""},
		{"zero byte", innerdock.ImageDefinition{Steps: []innerdock.ImageStep{{Command: "a\x00b"}}}, "!zero byte", ""},
		{"long command", innerdock.ImageDefinition{Steps: []innerdock.ImageStep{{Command: strings.Repeat("x", 1<<20)}}}, "!longer", ""},
		{"many steps", innerdock.ImageDefinition{Steps: make([]innerdock.ImageStep, 1000)}, "!256", ""},
		{"line break in a package", innerdock.ImageDefinition{Steps: []innerdock.ImageStep{{PythonPackages: []string{"a\nRUN b"}}}}, "!no Python package", ""},
		{"line break in env", innerdock.ImageDefinition{Env: map[string]string{"A": "b\nRUN c"}}, "!line break", ""},
		{"added Python", innerdock.ImageDefinition{BaseImage: "debian", Steps: []innerdock.ImageStep{{PythonVersion: "python3.12; true"}}}, "!python_version", ""},
		{"micromamba's option", innerdock.ImageDefinition{Steps: []innerdock.ImageStep{{Micromamba: &innerdock.MicromambaInstall{Packages: []string{"--help"}}}}}, "!package of micromamba", ""},
		{"micromamba's channel", innerdock.ImageDefinition{Steps: []innerdock.ImageStep{{Micromamba: &innerdock.MicromambaInstall{Channels: []string{""}}}}}, "!channel of micromamba", ""},
		{"relative directory", innerdock.ImageDefinition{WorkingDir: "app"}, "!absolute", ""},
		{"line break in the directory", innerdock.ImageDefinition{WorkingDir: "/app\nRUN x"}, "!absolute", ""},
		{"root as the directory", innerdock.ImageDefinition{WorkingDir: "/app/.."}, "!below it", ""},
		{"user", innerdock.ImageDefinition{User: "app\nRUN x"}, "!user", ""},
		{"copy from above", innerdock.ImageDefinition{Steps: []innerdock.ImageStep{{Copy: &innerdock.ImageCopy{Source: "../x", Target: "/x"}}}}, "!no path in the context", ""},
		{"copy of a pattern", innerdock.ImageDefinition{Steps: []innerdock.ImageStep{{Copy: &innerdock.ImageCopy{Source: "*", Target: "/x"}}}}, "!no path in the context", ""},
		{"copy of all", innerdock.ImageDefinition{Steps: []innerdock.ImageStep{{Copy: &innerdock.ImageCopy{Source: "/", Target: "/x"}}}}, "!no path in the context", ""},
		{"copy to nowhere", innerdock.ImageDefinition{Steps: []innerdock.ImageStep{{Copy: &innerdock.ImageCopy{Source: "0", Target: "x"}}}}, "!no absolute path", ""},
		{"copy to above", innerdock.ImageDefinition{Steps: []innerdock.ImageStep{{Copy: &innerdock.ImageCopy{Source: "0", Target: "/a/../b"}}}}, "!no absolute path", ""},
		{"Dockerfile and base", innerdock.ImageDefinition{BaseImage: "debian", Dockerfile: &innerdock.ImageDockerfile{Text: "FROM x"}}, "!names its base itself", ""},
		{"empty Dockerfile", innerdock.ImageDefinition{Dockerfile: &innerdock.ImageDockerfile{Text: "\n"}}, "!empty", ""},
		{"target", innerdock.ImageDefinition{Dockerfile: &innerdock.ImageDockerfile{Text: "FROM x", Target: "a\nRUN b"}}, "!stage", ""},
		{"build argument", innerdock.ImageDefinition{Dockerfile: &innerdock.ImageDockerfile{Text: "FROM x", Args: map[string]string{"A B": ""}}}, "!build argument", ""},
		{"secret's name", innerdock.ImageDefinition{Secrets: []string{"A,target=/x"}}, "!secret", ""},
		{"secret twice", innerdock.ImageDefinition{Secrets: []string{"A", "A"}}, "!of its own", ""},
		{"value of no secret", innerdock.ImageDefinition{Values: innerdock.SecretValues{"A": "b"}}, "!not one of the secrets", ""},
		{"large secret", innerdock.ImageDefinition{Secrets: []string{"A"}, Values: innerdock.SecretValues{"A": strings.Repeat("x", 2<<20)}}, "!larger", ""},
		{"user's group", innerdock.ImageDefinition{User: "app:"}, "!user", ""},
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

// Docker images are part of an image's identity, in their order and each once.
func TestDockerImages(t *testing.T) {
	id := func(refs ...string) string {
		t.Helper()
		p, err := newPlan(innerdock.ImageDefinition{BaseImage: "debian", DockerImages: refs})
		if err != nil {
			t.Fatal(err)
		}
		if p.isBase() != (len(refs) == 0) || !p.withoutImages().isBase() {
			t.Errorf("%q: isBase is %v", refs, p.isBase())
		}
		id, err := p.id(resolution{Ref: "debian", Digest: "sha256:0"})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	if id("redis:7", "nginx", "redis:7") != id("redis:7", "nginx") {
		t.Error("an image that is named twice makes another image")
	}
	seen := map[string]bool{}
	for _, refs := range [][]string{{}, {"redis:7"}, {"redis:8"}, {"redis:7", "nginx"}} {
		seen[id(refs...)] = true
	}
	if len(seen) != 4 {
		t.Errorf("four definitions have %d IDs", len(seen))
	}
	for _, wrong := range [][]string{{"-a"}, {""}, {"UPPER"}, {"a b"}, make([]string, maxDockerImages+1)} {
		if _, err := newPlan(innerdock.ImageDefinition{BaseImage: "debian", DockerImages: wrong}); innerdock.CodeOf(err) != innerdock.CodeInvalid {
			t.Errorf("%.20q: %v", wrong, err)
		}
	}
	if _, err := (&Store{}).Build(t.Context(), innerdock.ImageDefinition{BaseImage: "debian", DockerImages: []string{"redis"}}, nil); innerdock.CodeOf(err) != innerdock.CodeUnsupported {
		t.Errorf("without a runner: %v", err)
	}
}

// An image that pip has a part in is a tenant's own, and its other steps know no cache.
func TestImagesOfPip(t *testing.T) {
	pip := innerdock.ImageStep{PythonPackages: []string{"--no-deps", "requests"}}
	command := innerdock.ImageStep{Command: "python3 -m pip install requests"}
	of := func(tenant string, steps ...innerdock.ImageStep) (plan, string) {
		t.Helper()
		p, err := newPlan(innerdock.ImageDefinition{Steps: steps})
		if err != nil {
			t.Fatal(err)
		}
		p.tenant = tenant
		id, err := p.id(resolution{Source: "x"})
		if err != nil {
			t.Fatal(err)
		}
		return p, id
	}
	p, one := of("one", command, pip)
	if _, two := of("two", command, pip); one == two {
		t.Error("two tenants have one image")
	}
	_, one = of("one", command)
	if _, two := of("two", command); one != two {
		t.Error("without pip they have two")
	}
	if _, ok := p.steps[0].WithCache("/c"); ok {
		t.Error("a command has the cache")
	}
	before := slices.Clone(p.steps[1].Args)
	cached, ok := p.steps[1].WithCache("/c")
	want := "python3 -m pip install --root-user-action=ignore --disable-pip-version-check --cache-dir /c --no-deps requests"
	if !ok || strings.Join(cached.Args, " ") != want || !slices.Equal(p.steps[1].Args, before) {
		t.Errorf("the command is %q, and was %q", cached.Args, p.steps[1].Args)
	}
}
