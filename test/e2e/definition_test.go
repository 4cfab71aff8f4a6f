package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/innerdock/innerdock"
)

// TestProcessesAreTheImagesUsers runs processes where and as whom an image says,
// and as others.
func TestProcessesAreTheImagesUsers(t *testing.T) {
	t.Parallel()
	def := innerdock.ImageDefinition{
		PythonVersion: "python3.11", WorkingDir: "/srv/app", User: "app",
		Steps: []innerdock.ImageStep{{Command: "groupadd --gid 1600 staff2 && useradd --create-home --uid 1500 --groups staff2 app"}},
	}
	sandbox := shared.create(t, def, innerdock.SandboxSpec{})
	const tell = "id -u; id -Gn; echo $HOME; pwd; echo mine > file && stat -c %U file"
	if got := shared.sh(t, sandbox.ID, tell); got != "1500\napp staff2\n/home/app\n/srv/app\napp\n" {
		t.Errorf("it runs as %q", got)
	}
	if got := shared.exec(t, sandbox.ID, "sh", "-c", "echo > /etc/passwd"); got.code == 0 {
		t.Error("the user could write root's files")
	}
	if _, err := shared.client.WriteFile(t.Context(), sandbox.ID, "other", 0o644, strings.NewReader("x")); err != nil {
		t.Error(err)
	}
	if got := shared.sh(t, sandbox.ID, "cat /srv/app/other"); got != "x" {
		t.Errorf("a file with a relative path holds %q", got)
	}
	for _, tc := range []struct{ user, want string }{{"root", "0:0"}, {"1500:0", "1500:0"}, {"nobody", "65534:65534"}} {
		got := shared.cli(t, nil, "exec", "-u", tc.user, "-w", "/", sandbox.ID, "--", "sh", "-c", "echo $(id -u):$(id -g)")
		if strings.TrimSpace(got.stdout) != tc.want {
			t.Errorf("as %s: %+v", tc.user, got)
		}
	}
	if got := shared.cli(t, nil, "exec", "-u", "absent", sandbox.ID, "--", "true"); got.code == 0 || !strings.Contains(got.stderr, "no user") {
		t.Errorf("as nobody that is there: %+v", got)
	}
}

// TestAPythonThatTheDistributionHasNot is refused with what to do instead. One that
// it has is in the documentation, which is a test.
func TestAPythonThatTheDistributionHasNot(t *testing.T) {
	t.Parallel()
	_, err := shared.client.BuildImage(t.Context(), innerdock.ImageDefinition{
		BaseImage: "debian:bookworm", Steps: []innerdock.ImageStep{{PythonVersion: "python3.5"}},
	}, nil)
	wantCode(t, err, innerdock.CodeImageBuildFailed, "no package of python3.5", "micromamba")
}

// TestASecretWithoutAValue is told at once.
func TestASecretWithoutAValue(t *testing.T) {
	_, err := shared.client.BuildImage(t.Context(), innerdock.ImageDefinition{
		BaseImage: "busybox:latest", Secrets: []string{"NEVER_GIVEN"}, Steps: []innerdock.ImageStep{{Command: "true"}},
	}, nil)
	wantCode(t, err, innerdock.CodeInvalid, "NEVER_GIVEN", "secret_values")
}

// TestADirectoryIsBuiltByTheCommandLine builds one with everything that the
// command has flags for, and finds it again.
func TestADirectoryIsBuiltByTheCommandLine(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"Dockerfile":    "FROM busybox:latest AS base\nARG V=0\nRUN --mount=type=secret,id=WORD cat /run/secrets/WORD | wc -c > /length; echo $V > /v\nFROM base AS app\nCOPY . /app\nFROM scratch\n",
		".dockerignore": "*.log\n", "kept": "kept", "noise.log": "noise", "word": "sesame",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	build := []string{"image", "build", "--target", "app", "--build-arg", "V=7", "--secret", "id=WORD,src=" + filepath.Join(dir, "word"), "--step", "id -u > /who", "-u", "1500", "-w", "/app", dir}
	first := shared.cli(t, nil, build...)
	if first.code != 0 || strings.Contains(first.stderr, "sesame") {
		t.Fatalf("%+v", first)
	}
	if again := shared.cli(t, nil, build...); again.stdout != first.stdout || strings.Contains(again.stderr, "sending") {
		t.Errorf("the second time: %+v", again)
	}
	got := shared.cli(t, nil, "run", "-q", strings.TrimSpace(first.stdout), "--", "sh", "-c", "cat /v /length /who; ls /app; id -u; pwd")
	if got.stdout != "7\n6\n0\nDockerfile\nkept\nword\n1500\n/app\n" {
		t.Errorf("in the image there is %+v", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM busybox:latest\nRUN echo words && false\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := shared.cli(t, nil, "image", "build", dir); got.code == 0 || !strings.Contains(got.stderr, "words") || !strings.Contains(got.stderr, "false") {
		t.Errorf("a step that fails: %+v", got)
	}
}

// TestTheDockerfileOfADefinition has Docker build what a definition is rendered
// as, and looks whether every word of it arrived.
func TestTheDockerfileOfADefinition(t *testing.T) {
	t.Parallel()
	const odd = `a "b" 'c' $HOME \n \\ #d`
	text, err := shared.client.Dockerfile(t.Context(), innerdock.ImageDefinition{
		BaseImage: "busybox:latest", Env: map[string]string{"ODD": odd}, Secrets: []string{"WORD"},
		WorkingDir: "/srv/my $dir", User: "1500:1600",
		Steps: []innerdock.ImageStep{
			{Command: "printf %s \"$ODD\" > /env"},
			{Command: "cat <<EOF > /heredoc\none $((1 + 1))\nEOF\nprintf %s \"$WORD\" | wc -c > /length"},
			{Command: "#!/bin/false\necho '[\"a\"]' \\\n  > /shell"},
			{Copy: &innerdock.ImageCopy{Source: "0", Target: `/it's "my" $dir/file`}},
			{Copy: &innerdock.ImageCopy{Source: "1/", Target: "/tree/"}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	sandbox := shared.createWithDocker(t, innerdock.SandboxSpec{Memory: "2Gi"})
	for name, content := range map[string]string{"context/Dockerfile": text, "context/0": "file", "context/1/a/b": "below", "word": "se$same"} {
		if _, err := shared.client.WriteFile(t.Context(), sandbox.ID, name, 0o644, strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	shared.sh(t, sandbox.ID, "docker build -q -t rendered --secret id=WORD,src=word context")
	got := shared.sh(t, sandbox.ID, `docker run --rm rendered sh -c 'cat /env; echo; echo "$ODD"; cat /heredoc /length /shell "/it'"'"'s \"my\" \$dir/file"; echo; cat /tree/a/b; echo; id -u; id -g; pwd; touch mine && ls /run/secrets'; docker history --no-trunc rendered`)
	want := odd + "\n" + odd + "\none 2\n7\n[\"a\"]\nfile\nbelow\n1500\n1600\n/srv/my $dir\n"
	if !strings.HasPrefix(got, want) {
		t.Errorf("it is\n%s\nwant\n%s\nof\n%s", got, want, text)
	}
	if strings.Contains(got, "WORD\n") || strings.Contains(got, "se$same") {
		t.Errorf("the secret was kept:\n%s", got)
	}
}
