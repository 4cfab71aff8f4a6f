package image

import (
	"strings"
	"testing"

	"github.com/innerdock/innerdock"
)

func ofDockerfile(text string) innerdock.ImageDefinition {
	return innerdock.ImageDefinition{Dockerfile: &innerdock.ImageDockerfile{Text: text}}
}

func TestDockerfileDefinitions(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*innerdock.ImageDefinition)
		want   string // in the error
	}{
		{"python as well", func(d *innerdock.ImageDefinition) { d.PythonVersion = "3.11" }, "names its base itself"},
		{"base as well", func(d *innerdock.ImageDefinition) { d.BaseImage = "debian" }, "names its base itself"},
		{"an account for no registry", func(d *innerdock.ImageDefinition) { d.Credentials = &innerdock.RegistryCredentials{Username: "u"} }, "registry_credentials"},
		{"an account at a path", func(d *innerdock.ImageDefinition) {
			d.Registries = map[string]innerdock.RegistryCredentials{"example.com/x": {Username: "u", Password: "p"}}
		}, "no registry"},
		{"an empty account", func(d *innerdock.ImageDefinition) {
			d.Registries = map[string]innerdock.RegistryCredentials{"example.com": {}}
		}, "is empty"},
		{"empty", func(d *innerdock.ImageDefinition) { d.Dockerfile.Text = " \n" }, "is empty"},
		{"long", func(d *innerdock.ImageDefinition) { d.Dockerfile.Text = strings.Repeat("#", maxDockerfile+1) }, "larger"},
		{"zero byte", func(d *innerdock.ImageDefinition) { d.Dockerfile.Text += "\x00" }, "no text"},
		{"target that is an option", func(d *innerdock.ImageDefinition) { d.Dockerfile.Target = "--push" }, "no name of a stage"},
		{"argument's name", func(d *innerdock.ImageDefinition) { d.Dockerfile.Args = map[string]string{"A=B": "c"} }, "A=B"},
		{"long arguments", func(d *innerdock.ImageDefinition) {
			d.Dockerfile.Args = map[string]string{"A": strings.Repeat("x", maxArgs)}
		}, "larger"},
	} {
		def := ofDockerfile("FROM scratch\n")
		if _, err := newPlan(def); err != nil {
			t.Fatal(err)
		}
		tc.change(&def)
		if _, err := newPlan(def); innerdock.CodeOf(err) != innerdock.CodeInvalid || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// Steps go on after the stage that is asked for.
func TestStepsAfterADockerfile(t *testing.T) {
	def := ofDockerfile("FROM a AS one\nFROM b\n")
	def.Dockerfile.Target = "one"
	text := func() string {
		t.Helper()
		p, err := newPlan(def)
		if err != nil {
			t.Fatal(err)
		}
		return p.dockerfile()
	}
	if got := text(); got != "FROM a AS one\nFROM b\n" {
		t.Errorf("alone it is %q", got)
	}
	def.Steps = []innerdock.ImageStep{{Command: "true"}}
	if got := text(); !strings.HasPrefix(got, "FROM a AS one\nFROM b\nFROM one\nUSER root\n") || !strings.HasSuffix(got, "RUN true\n") {
		t.Errorf("with a step it is %q", got)
	}
}

// A build is found again by its own tenant alone, whatever its secrets' values are.
func TestWhatABuildIsFoundBy(t *testing.T) {
	key := func(tenant string, change func(*innerdock.ImageDefinition)) string {
		t.Helper()
		def := ofDockerfile("FROM scratch\n")
		def.Secrets, def.Values, def.Context = []string{"A", "B"}, innerdock.SecretValues{"A": "1"}, "sha256:1"
		change(&def)
		p, err := newPlan(def)
		if err != nil {
			t.Fatal(err)
		}
		k, err := p.buildKey(tenant)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	first := key("one", func(*innerdock.ImageDefinition) {})
	for name, same := range map[string]func(*innerdock.ImageDefinition){
		"another value": func(d *innerdock.ImageDefinition) { d.Values["A"] = "2" },
		"another order": func(d *innerdock.ImageDefinition) { d.Secrets = []string{"B", "A"} },
		"refresh":       func(d *innerdock.ImageDefinition) { d.Refresh = true },
	} {
		if key("one", same) != first {
			t.Errorf("%s makes another image", name)
		}
	}
	if key("two", func(*innerdock.ImageDefinition) {}) == first {
		t.Error("another tenant finds it")
	}
	for name, other := range map[string]func(*innerdock.ImageDefinition){
		"text":    func(d *innerdock.ImageDefinition) { d.Dockerfile.Text += "#" },
		"target":  func(d *innerdock.ImageDefinition) { d.Dockerfile.Target = "x" },
		"args":    func(d *innerdock.ImageDefinition) { d.Dockerfile.Args = map[string]string{"A": "1"} },
		"secrets": func(d *innerdock.ImageDefinition) { d.Secrets = d.Secrets[:1] },
		"files":   func(d *innerdock.ImageDefinition) { d.Context = "sha256:2" },
		"env":     func(d *innerdock.ImageDefinition) { d.Env = map[string]string{"A": "1"} },
		"account": func(d *innerdock.ImageDefinition) {
			d.Registries = map[string]innerdock.RegistryCredentials{"example.com": {Username: "u", Password: "p"}}
		},
	} {
		if key("one", other) == first {
			t.Errorf("another %s is the same image", name)
		}
	}
}

func TestBuiltinFrontend(t *testing.T) {
	for text, want := range map[string]string{
		"# syntax=docker/dockerfile:1\nFROM a":          "#\nFROM a",
		"#syntax = docker.io/docker/dockerfile:1.4\r\n": "#\n",
		"# syntax=docker/dockerfile:1":                  "#",
		"# syntax=docker/dockerfile:1.20\nFROM a":       "# syntax=docker/dockerfile:1.20\nFROM a",
		"# syntax=evil/frontend\nFROM a":                "# syntax=evil/frontend\nFROM a",
		"FROM a\n# syntax=docker/dockerfile:1\n":        "FROM a\n# syntax=docker/dockerfile:1\n",
	} {
		if got := builtinFrontend(text); got != want {
			t.Errorf("%q becomes %q", text, got)
		}
	}
}

// What BuildKit says becomes events of its steps, however much it says.
func TestBuildOutput(t *testing.T) {
	var events []string
	o := &buildOutput{names: map[string]string{}, say: newReporter(func(event string, e innerdock.BuildEvent) {
		events = append(events, event+"|"+e.Step+"|"+e.Message)
	})}
	for _, line := range []string{"#7 [2/2] RUN x", "#7 0.123 out", "#7 DONE 0.1s", "", "plain", "\xff#1", "------", " > [2/2] RUN x:", "0.1 out"} {
		o.line(line)
	}
	want := "progress|[2/2] RUN x|[2/2] RUN x\nlog|[2/2] RUN x|out\nprogress|[2/2] RUN x|DONE 0.1s\n" +
		"log|build|plain\nlog|build|\uFFFD#1\nlog|build|------\nlog|build| > [2/2] RUN x:\nlog|build|0.1 out"
	if got := strings.Join(events, "\n"); got != want {
		t.Errorf("it says\n%s", got)
	}
	err := o.failure(t.Context(), &DockerfileError{ExitCode: 1})
	if innerdock.CodeOf(err) != innerdock.CodeImageBuildFailed || !strings.HasSuffix(err.Error(), "\n > [2/2] RUN x:\n0.1 out") {
		t.Errorf("the error is %v", err)
	}
	for range 3 * maxBuildLines {
		o.line(strings.Repeat("x", 2*maxLine))
	}
	if len(o.last) != maxBuildLines || len(o.last[0]) != maxLine {
		t.Errorf("%d lines of %d bytes are kept", len(o.last), len(o.last[0]))
	}
}
