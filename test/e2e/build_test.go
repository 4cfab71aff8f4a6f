package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/test/census"
)

// builds is a server whose builders are small and that seeds busybox for them.
func builds(t *testing.T, flags ...string) *server {
	t.Helper()
	s := listening(t, 221, append([]string{"--templates", "0"}, flags...)...)
	if err := s.seed(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// files are packed as the files of a build.
func files(t *testing.T, content map[string]string) io.Reader {
	t.Helper()
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	for _, name := range slices.Sorted(maps.Keys(content)) {
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content[name]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(content[name])); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return &archive
}

// buildLog collects what a build says.
type buildLog struct{ strings.Builder }

func (l *buildLog) add(_ string, e innerdock.BuildEvent) {
	l.WriteString(e.Step + " | " + e.Message + "\n")
}

// once makes a Dockerfile one that no earlier run of the tests has built: servers
// share the images.
func (s *server) once(text string) *innerdock.ImageDockerfile {
	return &innerdock.ImageDockerfile{Text: text + "# " + s.dir + "\n"}
}

// dockerfile builds one that takes files.
func (s *server) dockerfile(t *testing.T, text string, content map[string]string, change ...func(*innerdock.ImageDefinition)) (innerdock.Image, string, error) {
	t.Helper()
	def := innerdock.ImageDefinition{Dockerfile: s.once(text)}
	for _, f := range change {
		f(&def)
	}
	var log buildLog
	image, err := s.client.BuildImageFrom(t.Context(), def, files(t, content), log.add)
	return image, log.String(), err
}

const shop = `# syntax=docker/dockerfile:1
ARG BASE=busybox
FROM ${BASE} AS compile
ARG WHO=nobody
WORKDIR /out
COPY . /src/
RUN <<EOF
set -e
echo "for $WHO" > made
ls -A /src > names
EOF

FROM busybox AS test
RUN echo "the test stage ran"; false

FROM busybox AS final
COPY --from=compile /out/ /app/
COPY one.txt /app/
RUN --mount=type=secret,id=TOKEN wc -c < /run/secrets/TOKEN > /app/length && cat /proc/sys/kernel/random/uuid > /app/random
ENV GREETING=hello
WORKDIR /app
CMD ["cat", "made"]
`

// TestADockerfile builds one of several stages with everything that goes with it,
// finds it again, and goes on from its cache when a part has changed and when the
// server was killed.
func TestADockerfile(t *testing.T) {
	t.Parallel()
	s := builds(t)
	const secret = "s3cr3t-0f-the-build"
	content := map[string]string{"one.txt": "first", "two.log": "left out", ".dockerignore": "*.log\n"}
	everything := func(def *innerdock.ImageDefinition) {
		def.Dockerfile.Args, def.Dockerfile.Target = map[string]string{"WHO": "everybody"}, "final"
		def.Secrets, def.Values = []string{"TOKEN"}, innerdock.SecretValues{"TOKEN": secret}
	}
	image, log, err := s.dockerfile(t, shop, content, everything)
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	if strings.Contains(log, "the test stage ran") || !strings.Contains(log, "RUN") {
		t.Errorf("the log is\n%s", log)
	}
	if image.Source != "dockerfile" || image.Env["GREETING"] != "hello" || image.WorkingDir != "/app" || image.Cached {
		t.Errorf("it is %+v", image)
	}
	read := func(image innerdock.Image) string {
		sandbox, err := s.client.CreateSandbox(t.Context(), innerdock.SandboxSpec{Image: image.ID})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _, _ = s.client.Terminate(context.WithoutCancel(t.Context()), sandbox.ID) }()
		return s.sh(t, sandbox.ID, "cat made names one.txt length random")
	}
	first := read(image)
	if want := "for everybody\n.dockerignore\none.txt\nfirst19\n"; !strings.HasPrefix(first, want) {
		t.Errorf("it holds %q; want %q first", first, want)
	}

	t.Run("the secret is nowhere", func(t *testing.T) {
		archive := filepath.Join(t.TempDir(), "image.tar")
		if got := s.cli(t, nil, "image", "export", "-f", archive, image.ID); got.code != 0 {
			t.Fatalf("%+v", got)
		}
		dir := t.TempDir()
		if out, err := exec.Command("sh", "-c", `cd "$1" && tar -xf "$2" && for f in blobs/sha256/*; do zcat -f "$f" 2>/dev/null >> all || true; cat "$f" >> all; done`, "sh", dir, archive).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		all, err := os.ReadFile(filepath.Join(dir, "all"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(all, []byte("for everybody")) {
			t.Error("the layers were not looked into")
		}
		for where, text := range map[string][]byte{"layers": all, "log": []byte(log), "server's log": []byte(s.log.String())} {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("the secret is in the %s", where)
			}
		}
		err = filepath.WalkDir(s.data(), func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || strings.HasPrefix(path, filepath.Join(s.data(), "scratch")) {
				return err
			}
			if text, err := os.ReadFile(path); err == nil && bytes.Contains(text, []byte(secret)) {
				t.Errorf("the secret is in %s", path)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("unchanged", func(t *testing.T) {
		began := time.Now()
		again, log, err := s.dockerfile(t, shop, content, everything)
		t.Logf("answered in %.1f ms", time.Since(began).Seconds()*1000)
		if err != nil || again.ID != image.ID || !again.Cached || log != "" {
			t.Errorf("%+v, %v\n%s", again, err, log)
		}
	})
	t.Run("a changed end", func(t *testing.T) {
		next, log, err := s.dockerfile(t, shop+"ENV MORE=1\n", content, everything)
		if err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		if again := read(next); again != first || !strings.Contains(log, "CACHED") || next.Env["MORE"] != "1" {
			t.Errorf("it holds %q; the log is\n%s", again, log)
		}
	})
	t.Run("after a kill", func(t *testing.T) {
		if err := s.signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := s.start(t.Context()); err != nil {
			t.Fatal(err)
		}
		again, log, err := s.dockerfile(t, shop, content, everything)
		if err != nil || again.ID != image.ID || log != "" {
			t.Errorf("%+v, %v\n%s", again, err, log)
		}
		next, log, err := s.dockerfile(t, shop+"ENV MORE=2\n", content, everything)
		if err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		if again := read(next); again != first {
			t.Errorf("it holds %q; the log is\n%s", again, log)
		}
	})
	t.Run("another tenant", func(t *testing.T) {
		other := s.tenant(t, "other")
		def := innerdock.ImageDefinition{Dockerfile: s.once(shop)}
		everything(&def)
		def.Values = innerdock.SecretValues{"TOKEN": "guessed"}
		var log buildLog
		theirs, err := other.BuildImageFrom(t.Context(), def, files(t, content), log.add)
		if err != nil {
			t.Fatalf("%v\n%s", err, log.String())
		}
		if theirs.ID == image.ID || strings.Contains(log.String(), "CACHED") {
			t.Errorf("they have %s, as we do; their log is\n%s", theirs.ID, log.String())
		}
		if err := other.EndBuilder(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestAFailingDockerfile says which command failed, what it wrote, and where it
// stands; so does one that no build can begin with.
func TestAFailingDockerfile(t *testing.T) {
	t.Parallel()
	s := builds(t)
	_, log, err := s.dockerfile(t, "FROM busybox\nRUN true\nRUN echo what went wrong >&2; exit 7\n", nil)
	wantCode(t, err, innerdock.CodeImageBuildFailed, "Dockerfile:3", "exit code: 7", "what went wrong", "echo what went wrong >&2; exit 7")
	if !strings.Contains(log, "what went wrong") {
		t.Errorf("its log is\n%s", log)
	}
	_, _, err = s.dockerfile(t, "FROM busybox\nRUNN true\n", nil)
	wantCode(t, err, innerdock.CodeImageBuildFailed, "Dockerfile:2", "RUNN")
	_, _, err = s.dockerfile(t, "FROM busybox\nCOPY absent /\n", nil)
	wantCode(t, err, innerdock.CodeImageBuildFailed, "absent")
	_, _, err = s.dockerfile(t, "FROM busybox\n", nil, func(def *innerdock.ImageDefinition) {
		def.Dockerfile.Target = "nothing"
	})
	wantCode(t, err, innerdock.CodeImageBuildFailed, "nothing")
	def := innerdock.ImageDefinition{Dockerfile: &innerdock.ImageDockerfile{Text: "FROM busybox\n"}}
	_, err = s.client.BuildImageFrom(t.Context(), def, strings.NewReader("this is no archive"), nil)
	wantCode(t, err, innerdock.CodeImageBuildFailed, "tar")
}

// ticking is a Dockerfile that runs until it is stopped, and stopped is one that
// fails if the first still runs. Each has a line of its own, so that none is cached.
const (
	ticking = "FROM busybox\nRUN --mount=type=cache,target=/t date > /t/tick; echo begun; while true; do date +%s > /t/tick; cat /proc/uptime >> /t/tick; sleep 0.2; done\n"
	stopped = "FROM busybox\nRUN --mount=type=cache,target=/t cp /t/tick /before && sleep 2 && cmp /t/tick /before\n"
)

// tick starts a build that goes on, and returns when its command runs.
func (s *server) tick(ctx context.Context, t *testing.T) (result chan error) {
	t.Helper()
	begun := make(chan struct{})
	result = make(chan error, 1)
	go func() {
		defer close(result)
		once := sync.OnceFunc(func() { close(begun) })
		def := innerdock.ImageDefinition{Dockerfile: &innerdock.ImageDockerfile{Text: ticking}}
		_, err := s.client.BuildImage(ctx, def, func(event string, e innerdock.BuildEvent) {
			if event == "log" && strings.HasSuffix(e.Message, "begun") {
				once()
			}
		})
		once()
		result <- err
	}()
	<-begun
	select {
	case err := <-result:
		t.Fatalf("the build ended by itself: %v", err)
	default:
	}
	return result
}

// A build whose client leaves ends inside of the builder; so does one whose server
// is killed, and one that takes too long. The next build works, and a builder ends
// when there is none for a while.
func TestABuildThatIsLeftEnds(t *testing.T) {
	t.Parallel()
	s := builds(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	result := s.tick(ctx, t)
	cancel()
	if err := <-result; err == nil || t.Context().Err() != nil {
		t.Fatalf("it ended with %v", err)
	}
	if _, log, err := s.dockerfile(t, stopped, nil); err != nil {
		t.Fatalf("after its client left: %v\n%s\n%s", err, log, s.log)
	}

	result = s.tick(t.Context(), t)
	if err := s.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err == nil {
		t.Error("the build ended well")
	}
	if err := s.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, log, err := s.dockerfile(t, strings.Replace(stopped, "sleep 2", "sleep 2 && true", 1), nil); err != nil {
		t.Fatalf("after the server was killed: %v\n%s", err, log)
	}

	if err := s.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.flags = append(s.flags, "--build-time", "4s", "--builder-idle", "2s")
	if err := s.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := s.client.BuildImage(t.Context(), innerdock.ImageDefinition{Dockerfile: &innerdock.ImageDockerfile{Text: ticking}}, nil)
	wantCode(t, err, innerdock.CodeImageBuildFailed, "took longer than 4s")
	eventually(t, func() error {
		left, err := census.Take(t.Context(), s.data())
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("the builder waits on:\n%s", strings.Join(left, "\n"))
		}
		return err
	})
}

// A Dockerfile that takes all room, all processes or more time than it may have
// fails, and the next build works.
func TestHostileDockerfiles(t *testing.T) {
	t.Parallel()
	s := builds(t, "--builder-disk", "1536Mi", "--build-time", "4m")
	works := func(t *testing.T, name string) {
		t.Helper()
		if _, log, err := s.dockerfile(t, "FROM busybox\nRUN echo after "+name+"\n", nil); err != nil {
			t.Errorf("the next build: %v\n%s", err, log)
		}
	}
	t.Run("disk", func(t *testing.T) {
		_, _, err := s.dockerfile(t, "FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=3000\n", nil)
		wantCode(t, err, innerdock.CodeImageBuildFailed, "No space left on device")
		works(t, "disk")
	})
	t.Run("forks", func(t *testing.T) {
		_, _, err := s.dockerfile(t, "FROM busybox\nRUN f() { f | f & }; f; sleep 20; false\n", nil)
		wantCode(t, err, innerdock.CodeImageBuildFailed)
		works(t, "forks")
	})
	t.Run("network", func(t *testing.T) {
		listener, err := net.Listen("tcp4", "0.0.0.0:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = listener.Close() }()
		_, port, _ := net.SplitHostPort(listener.Addr().String())
		var tries strings.Builder
		tries.WriteString("nc -w 5 $(sed -n 's/^nameserver //p' /etc/resolv.conf | head -n 1) 5000 </dev/null || exit 9; ") // offered on purpose
		for _, address := range append(hostAddresses(t), "169.254.169.254") {
			tries.WriteString("nc -w 1 " + address + " " + port + " </dev/null && echo " + address + " is open && exit 1; ")
		}
		if _, log, err := s.dockerfile(t, "FROM busybox\nRUN "+tries.String()+"true\n", nil); err != nil {
			t.Errorf("%v\n%s", err, log)
		}
	})
	t.Run("privileges", func(t *testing.T) {
		_, _, err := s.dockerfile(t, "FROM busybox\nRUN --network=host true\n", nil)
		wantCode(t, err, innerdock.CodeImageBuildFailed, "network.host")
	})
}

// A base that no registry can be asked for is made from Debian's packages, and a
// definition that copies files is built on it.
func TestABaseThatIsMadeHere(t *testing.T) {
	t.Parallel()
	s := builds(t)
	def := innerdock.ImageDefinition{PythonVersion: "python3.11", Steps: []innerdock.ImageStep{
		{Copy: &innerdock.ImageCopy{Source: "app.py", Target: "/app/"}},
		{Command: "python3 /app/app.py > /app/said; wc -c < /run/secrets/KEY >> /app/said"},
	}, Env: map[string]string{"RUN": s.dir}, Secrets: []string{"KEY"}, Values: innerdock.SecretValues{"KEY": "12345"}}
	var log buildLog
	image, err := s.client.BuildImageFrom(t.Context(), def, files(t, map[string]string{"app.py": "import sys; print('it runs', sys.version_info[:2])\n"}), log.add)
	if err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	if !strings.Contains(image.Base, "library/python:3.11") {
		t.Errorf("its base is %q", image.Base)
	}
	sandbox, err := s.client.CreateSandbox(t.Context(), innerdock.SandboxSpec{Image: image.ID})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.sh(t, sandbox.ID, "cat /app/said"); got != "it runs (3, 11)\n5\n" {
		t.Errorf("it says %q", got)
	}
}

// A builder starts warm where an earlier one has left a template.
func TestABuilderStartsWarm(t *testing.T) {
	t.Parallel()
	s := ownServer(t, 221)
	if err := s.seed(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, log, err := s.dockerfile(t, "FROM busybox\nRUN echo cold\n", nil); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	eventually(t, func() error {
		if log := s.log.String(); !strings.Contains(log, "a template was made") {
			return fmt.Errorf("no template was made:\n%s", log)
		}
		return nil
	})
	if err := s.client.EndBuilder(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := len(s.log.String())
	if _, log, err := s.dockerfile(t, "FROM busybox\nRUN echo warm\n", nil); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	if log := s.log.String()[before:]; !strings.Contains(log, "start=warm") {
		t.Errorf("the server says\n%s", log)
	}
}
