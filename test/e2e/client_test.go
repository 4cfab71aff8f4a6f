package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
)

// dockerRoot is the root of an image with Docker, as files: its docker command,
// with Compose and Buildx, is the client of these tests.
func (s *server) dockerRoot(image string) (string, error) {
	dir := filepath.Join(s.dir, "client")
	out, err := exec.Command("fsck.erofs", "--extract="+dir, filepath.Join(cacheDir(), "images/images", strings.TrimPrefix(image, "sha256:"), "root.erofs")).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("extracting the docker command: %w: %s", err, out)
	}
	return dir, nil
}

// inRoot runs a command of the root $1 in the directory $2, which it sees like the
// rest of the machine's /var/tmp; the network is the machine's.
const inRoot = `set -e
mount --make-rprivate /
mount --rbind /dev "$1/dev"
mount --rbind /proc "$1/proc"
mount --bind /var/tmp "$1/var/tmp"
root=$1 dir=$2
shift 2
exec chroot "$root" /bin/sh -c 'cd "$0" && exec "$@"' "$dir" "$@"`

// dockerClient is the docker command of this machine, and where its daemon is.
type dockerClient struct {
	t       *testing.T
	root    string
	dir     string // to work in
	env     []string
	address string   // of published ports
	reach   []string // environment of an innerdock command that reaches the server from elsewhere
	sandbox innerdock.Sandbox
	server  *server
}

func newDockerClient(t *testing.T, s *server, sandbox innerdock.Sandbox) *dockerClient {
	t.Helper()
	root, err := s.dockerRoot(sandbox.Image)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(s.dir, "work")
	if err != nil {
		t.Fatal(err)
	}
	return &dockerClient{t: t, root: root, dir: dir, sandbox: sandbox, server: s}
}

// use takes what `innerdock docker-host` printed.
func (d *dockerClient) use(exports string) {
	d.t.Helper()
	d.env = []string{"HOME=" + d.dir, "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"}
	for line := range strings.Lines(exports) {
		assignment, found := strings.CutPrefix(strings.TrimSpace(line), "export ")
		if !found {
			d.t.Fatalf("docker-host printed %q", line)
		}
		name, value, _ := strings.Cut(assignment, "=")
		value = strings.Trim(value, "'")
		if name == "TESTCONTAINERS_HOST_OVERRIDE" {
			d.address = value
		}
		d.env = append(d.env, name+"="+value)
	}
}

func (d *dockerClient) command(ctx context.Context, args ...string) *exec.Cmd {
	args = append([]string{"--mount", "sh", "-c", inRoot, "sh", d.root, d.dir}, args...)
	cmd := exec.CommandContext(ctx, "unshare", args...)
	cmd.Env = d.env
	return cmd
}

// run runs docker, which must succeed, and returns its standard output.
func (d *dockerClient) run(stdin string, args ...string) string {
	d.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := d.command(d.t.Context(), append([]string{"docker"}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		d.t.Fatalf("docker %q: %v\n%s%s", args, err, &stdout, &stderr)
	}
	return stdout.String()
}

func (d *dockerClient) file(name, content string) {
	d.t.Helper()
	path := filepath.Join(d.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

// fetch gets a page, at the first attempt: a connection waits for what listens in
// a container that has just been started.
func (d *dockerClient) fetch(port string) (string, error) {
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + net.JoinHostPort(d.address, port))
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	return string(page), err
}

// open counts what the sandbox's agent and the server have open.
func (d *dockerClient) open() (agent, server int) {
	agent = len(strings.Fields(d.server.sh(d.t, d.sandbox.ID, "ls /proc/1/fd")))
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.server.cmd.Process.Pid))
	return agent, len(entries)
}

// Docker clients of this machine work with the Docker of a sandbox as with their
// own, through the server's socket.
func TestDockerClientsLocally(t *testing.T) {
	t.Parallel()
	s := ownServer(t, 228, seededOnly...)
	if err := s.seed(t.Context()); err != nil {
		t.Fatal(err)
	}
	sandbox := s.createWithDocker(t, innerdock.SandboxSpec{CPU: 2, Memory: "3Gi"})
	d := newDockerClient(t, s, sandbox)
	got := s.cli(t, nil, "docker-host", sandbox.ID)
	if got.code != 0 || !strings.Contains(got.stdout, "unix://"+s.dir+"/docker/"+sandbox.ID+".sock") {
		t.Fatalf("%+v", got)
	}
	d.use(got.stdout)
	d.checkAll()
	t.Run("a context", func(t *testing.T) { d.t = t; d.checkContext() })
	t.Run("the end of the sandbox", func(t *testing.T) { d.t = t; d.checkEnd() })
}

// seededOnly makes the registry cache have what it was seeded with, wherever this
// machine can reach.
var seededOnly = []string{"--registry-upstream", "http://127.0.0.1:1"}

// checkAll does what people do with a Docker client.
func (d *dockerClient) checkAll() {
	for _, check := range []struct {
		name string
		run  func()
	}{
		{"standard input that ends", d.checkHalfClose},
		{"a published port", d.checkPublished},
		{"a terminal", d.checkTerminal},
		{"cp", d.checkCopy},
		{"logs -f and events", d.checkStreams},
		{"BuildKit", d.checkBuild},
		{"Compose", d.checkCompose},
		{"a client that vanishes", d.checkVanishing},
		{"Ctrl-C", d.checkInterrupts},
		{"Ctrl-C of a pull", d.checkInterruptedPull},
	} {
		outer := d.t
		outer.Run(check.name, func(t *testing.T) { d.t = t; defer func() { d.t = outer }(); check.run() })
	}
}

func (d *dockerClient) checkHalfClose() {
	if got := d.run("hi\n", "run", "--rm", "-i", "busybox:latest", "sh", "-c", "cat; echo end"); got != "hi\nend\n" {
		d.t.Errorf("cat says %q", got)
	}
	large := strings.Repeat("0123456789abcdef", 1<<18) // 4 MiB
	if got := d.run(large, "run", "--rm", "-i", "busybox:latest", "cat"); got != large {
		d.t.Errorf("of %d bytes %d came back", len(large), len(got))
	}
}

// A port is there when the start has been answered.
func (d *dockerClient) checkPublished() {
	for i := range 5 {
		port := fmt.Sprint(18080 + i)
		d.run("", "run", "-d", "--name", "web"+port, "-p", port+":80", "nginx:latest")
		if page, err := d.fetch(port); err != nil || !strings.Contains(page, "nginx") {
			d.t.Errorf("port %s: %.50q, %v", port, page, err)
		}
		d.run("", "rm", "-f", "web"+port)
	}
	eventually(d.t, func() error {
		if _, err := d.fetch("18080"); err == nil {
			return errors.New("a port is there after its container has gone")
		}
		return nil
	})
}

func (d *dockerClient) checkTerminal() {
	d.run("", "run", "-d", "--name", "box", "busybox:latest", "sleep", "1000")
	cmd := d.command(d.t.Context(), "script", "-qec", "docker exec -it box sh", "/dev/null")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	var out lockedBuffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	fmt.Fprintln(stdin, "tty; echo $((40+2)); exit 7")
	err = cmd.Wait()
	stdin.Close()
	if cmd.ProcessState.ExitCode() != 7 || !strings.Contains(out.String(), "/dev/pts/") || !strings.Contains(out.String(), "42") {
		d.t.Errorf("%v, %q", err, out.String())
	}
}

func (d *dockerClient) checkCopy() {
	d.file("tree/a/b", "content")
	d.run("", "cp", "tree", "box:/tmp/")
	if got := d.run("", "exec", "box", "cat", "/tmp/tree/a/b"); got != "content" {
		d.t.Errorf("in the container there is %q", got)
	}
	d.run("", "cp", "box:/tmp/tree", "back")
	if got, err := os.ReadFile(filepath.Join(d.dir, "back/a/b")); string(got) != "content" || err != nil {
		d.t.Errorf("back comes %q, %v", got, err)
	}
}

func (d *dockerClient) checkStreams() {
	events := d.events("slow", "die")
	logs := d.command(d.t.Context(), "docker", "logs", "-f", "slow")
	d.run("", "run", "-d", "--name", "slow", "busybox:latest", "sh", "-c", "echo one; sleep 2; echo two; sleep 1")
	var said lockedBuffer
	logs.Stdout = &said
	if err := logs.Run(); err != nil || said.String() != "one\ntwo\n" {
		d.t.Errorf("logs -f: %q, %v", said.String(), err)
	}
	events.next()
	events.end()
}

// dockerEvents is a docker command that tells of events.
type dockerEvents struct {
	d     *dockerClient
	cmd   *exec.Cmd
	lines *bufio.Reader
	want  string
}

// events follows what happens to a container, and begins with what has happened.
func (d *dockerClient) events(container, event string) *dockerEvents {
	d.t.Helper()
	cmd := d.command(d.t.Context(), "docker", "events", "--since", "1h", "--filter", "container="+container,
		"--filter", "event="+event, "--format", "{{.Action}} {{.Actor.Attributes.name}}")
	out, err := cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	return &dockerEvents{d: d, cmd: cmd, lines: bufio.NewReader(out), want: event + " " + container + "\n"}
}

// next waits for one.
func (e *dockerEvents) next() {
	e.d.t.Helper()
	if line, err := e.lines.ReadString('\n'); line != e.want {
		e.d.t.Fatalf("events: %q, %v", line, err)
	}
}

func (e *dockerEvents) end() {
	_ = e.cmd.Process.Kill()
	_ = e.cmd.Wait()
}

func (d *dockerClient) checkBuild() {
	d.file("build/Dockerfile", "FROM busybox:latest\nCOPY greeting /\nRUN --mount=type=secret,id=word cat /greeting /run/secrets/word > /both\nCMD cat /both\n")
	d.file("build/greeting", "hello ")
	d.file("word", "sesame")
	d.run("", "build", "-q", "-t", "secretive", "--secret", "id=word,src=word", "build")
	if got := d.run("", "run", "--rm", "secretive"); got != "hello sesame" {
		d.t.Errorf("the image says %q", got)
	}
	d.run("", "buildx", "build", "-o", "type=local,dest=out", "build", "--secret", "id=word,src=word")
	if got, err := os.ReadFile(filepath.Join(d.dir, "out/both")); string(got) != "hello sesame" || err != nil {
		d.t.Errorf("BuildKit brings back %q, %v", got, err)
	}
}

func (d *dockerClient) checkCompose() {
	d.file("app/compose.yaml", "services:\n  web: {image: \"nginx:latest\", ports: [\"18180:80\"]}\n  idle: {image: \"busybox:latest\", command: sleep 1000, depends_on: [web]}\n")
	d.run("", "compose", "--project-directory", "app", "up", "-d")
	if page, err := d.fetch("18180"); err != nil || !strings.Contains(page, "nginx") {
		d.t.Errorf("%.50q, %v", page, err)
	}
	if got := d.run("", "compose", "--project-directory", "app", "exec", "-T", "idle", "wget", "-qO-", "http://web"); !strings.Contains(got, "nginx") {
		d.t.Errorf("%.50q", got)
	}
	d.run("", "compose", "--project-directory", "app", "down", "-t", "1")
}
