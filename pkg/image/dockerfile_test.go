package image

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/innerdock/innerdock"
)

var update = flag.Bool("update", false, "write the golden files")

// TestDockerfile renders what a definition can hold, and text that would be
// something else if it were not quoted. test/e2e builds such a file for real.
func TestDockerfile(t *testing.T) {
	s := &Store{}
	got, err := s.Dockerfile(innerdock.ImageDefinition{
		PythonVersion: "python3.11",
		Env:           map[string]string{"A": `a "b" $HOME \n`, "B": "x"},
		WorkingDir:    "/srv/my $app/", User: "app:staff",
		Steps: []innerdock.ImageStep{
			{PythonPackages: []string{"requests==2.32.3", `a[b]>=1; python_version < "4"`, "--extra-index-url https://example.com/simple"}},
			{Command: "apt-get update && apt-get install -y git"},
			{Command: "set -e\necho one\nEOF\necho two"},
			{Command: `["echo", "no JSON"]`},
			{Command: "--mount=type=bind true"},
			{Command: "cat <<X"},
			{Command: `echo continued \`},
			{Command: "# nothing"},
			{Command: "#!/bin/false\necho a shell"},
			{Command: " indented"},
			{Command: "echo '\r'"},
			{Copy: &innerdock.ImageCopy{Source: "0/", Target: `/it's "my" $app/`}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/Dockerfile.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("rendered differently (-update writes it):\n%s", got)
	}
}

func TestDockerfileScripts(t *testing.T) {
	for _, tc := range []struct {
		step innerdock.ImageStep
		want []string
	}{
		{innerdock.ImageStep{Docker: &innerdock.DockerInstall{}}, []string{"RUN <<'EOF'\n#!/bin/sh\nsource='auto'\n"}},
		{innerdock.ImageStep{PythonVersion: "python3.12"}, []string{"RUN <<'EOF'\n#!/bin/sh\nversion='3.12'\n"}},
		{innerdock.ImageStep{Micromamba: &innerdock.MicromambaInstall{Packages: []string{"it's", "numpy >=2"}}},
			[]string{"ENV PATH=\"/opt/micromamba/bin:$PATH\"", "set -- --channel 'conda-forge'\n", `set -- "$@" 'it'\''s' 'numpy >=2'` + "\n"}},
	} {
		got, err := (&Store{}).Dockerfile(innerdock.ImageDefinition{BaseImage: "ghcr.io/a/b:c", Steps: []innerdock.ImageStep{tc.step}})
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range append(tc.want, "FROM ghcr.io/a/b:c\nUSER root\n", "\nEOF\n") {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in\n%s", want, got)
			}
		}
	}
	secret, err := (&Store{}).Dockerfile(innerdock.ImageDefinition{Secrets: []string{"A", "B"}, Values: innerdock.SecretValues{"A": "hush"}, Steps: []innerdock.ImageStep{
		{Command: "true"}, {PythonPackages: []string{"x"}}, {PythonVersion: "3.12"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	const mounts = "--mount=type=secret,id=A,required=true --mount=type=secret,id=B,required=true "
	const exports = "export A=\"$(cat /run/secrets/A)\"\nexport B=\"$(cat /run/secrets/B)\"\n"
	for _, want := range []string{
		"RUN " + mounts + "<<'EOF'\n" + exports + "true\nEOF\n",
		"RUN --mount=type=cache,target=/root/.cache/pip " + mounts + `["/bin/sh", "-c", ` + jsonString(exports+`exec "$@"`) + `, "sh", "python3", "-m"`,
		"RUN " + mounts + "<<'EOF'\n#!/bin/sh\n" + exports + "version='3.12'\n",
	} {
		if !strings.Contains(secret, want) {
			t.Errorf("no %q in\n%s", want, secret)
		}
	}
	if strings.Contains(secret, "hush") {
		t.Error("it holds a secret")
	}
	for _, tc := range []struct {
		def  innerdock.ImageDefinition
		want string
	}{
		{innerdock.ImageDefinition{Dockerfile: &innerdock.ImageDockerfile{Text: "FROM a\nRUN b"}}, "FROM a\nRUN b\n"},
		{innerdock.ImageDefinition{Dockerfile: &innerdock.ImageDockerfile{Text: "FROM a AS b\nFROM c\n\n", Target: "b"}, User: "app"}, "FROM a AS b\nFROM c\n\nFROM b\nUSER app\n"},
		{innerdock.ImageDefinition{Dockerfile: &innerdock.ImageDockerfile{Text: "FROM a"}, Steps: []innerdock.ImageStep{{Command: "true"}}},
			"FROM a\nUSER root\nARG DEBIAN_FRONTEND=noninteractive\nRUN true\n"},
	} {
		if got, err := (&Store{}).Dockerfile(tc.def); err != nil || got != tc.want {
			t.Errorf("rendered %q (%v), want %q", got, err, tc.want)
		}
	}
	if got, err := (&Store{}).Dockerfile(innerdock.ImageDefinition{BaseImage: "debian"}); err != nil || got != "FROM debian:latest\n" {
		t.Errorf("a base alone is %q (%v)", got, err)
	}
}
