package e2e

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
)

// dockerRoot is the root of the image with Docker, as files: its docker command,
// with Compose and Buildx, is the client of these tests.
var dockerRoot = sync.OnceValues(func() (string, error) {
	id := strings.TrimPrefix(dockerImage, "sha256:")
	dir := filepath.Join(shared.dir, "client")
	out, err := exec.Command("fsck.erofs", "--extract="+dir, filepath.Join(cacheDir(), "images/images", id, "root.erofs")).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("extracting the docker command: %w: %s", err, out)
	}
	return dir, nil
})

var dockerImage string

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
	dockerImage = sandbox.Image
	root, err := dockerRoot()
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

// The same over TLS, with a key, through a forwarder.
func TestDockerClientsRemotely(t *testing.T) {
	r := newFarServer(t, 227)
	sandbox := r.createWithDocker(t, innerdock.SandboxSpec{CPU: 2, Memory: "3Gi", Name: "far"})
	d := newDockerClient(t, r.server, sandbox)
	got := r.far(t, r.key, "docker-host", "far")
	if got.code != 0 || !strings.Contains(got.stdout, "DOCKER_HOST='unix://"+r.dir+"/innerdock/"+sandbox.ID+".sock'") {
		t.Fatalf("%+v", got)
	}
	if again := r.far(t, r.key, "docker-host", "far"); again.stdout != got.stdout {
		t.Errorf("the second time it says %+v", again)
	}
	d.use(got.stdout)
	if !strings.HasPrefix(d.address, "127.") || d.address == "127.0.0.1" {
		t.Errorf("published ports are at %s", d.address)
	}
	d.checkAll()
	t.Run("a port that is taken", func(t *testing.T) {
		taken, err := net.Listen("tcp", d.address+":18099")
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		d.run("", "run", "-d", "--rm", "--name", "taken", "-p", "18099:80", "nginx:latest")
		log, err := os.ReadFile(filepath.Join(r.dir, "innerdock", sandbox.ID+".log"))
		if err != nil || !strings.Contains(string(log), "port 18099 is not forwarded") || !strings.Contains(string(log), "--publish-address") {
			t.Errorf("the forwarder's log is %q, %v", log, err)
		}
		d.run("", "rm", "-f", "taken")
	})
	t.Run("keys", func(t *testing.T) {
		for key, word := range map[string]string{"idk_" + strings.Repeat("A", 43): "key", r.other: "no sandbox"} {
			if got := r.far(t, key, "docker-host", sandbox.ID); got.code != 125 || got.stdout != "" || !strings.Contains(got.stderr, word) {
				t.Errorf("%+v does not say %q", got, word)
			}
		}
	})
	t.Run("a port of UDP", func(t *testing.T) {
		d.run("", "run", "-d", "--rm", "--name", "datagrams", "-p", "18053:53/udp", "busybox:latest", "sleep", "1000")
		log, err := os.ReadFile(filepath.Join(r.dir, "innerdock", sandbox.ID+".log"))
		if err != nil || !strings.Contains(string(log), "port 18053/udp is not forwarded") {
			t.Errorf("the forwarder's log is %q, %v", log, err)
		}
		d.run("", "rm", "-f", "datagrams")
	})
	t.Run("--unset", func(t *testing.T) {
		got := r.far(t, r.key, "docker-host", "--unset", "far")
		if got.code != 0 || !strings.Contains(got.stdout, "unset DOCKER_HOST\n") {
			t.Errorf("%+v", got)
		}
		r.wantNoForwarder(t)
	})
	t.Run("a context", func(t *testing.T) {
		d.t = t
		d.reach = []string{"INNERDOCK_HOST=https://" + r.address, "INNERDOCK_API_KEY=" + r.key, "XDG_RUNTIME_DIR=" + r.dir}
		d.checkContext()
		d.reach[1] = "INNERDOCK_API_KEY=" + r.other
		if got := d.contexts("far"); got.code != 125 || !strings.Contains(got.stderr, "no sandbox") {
			t.Errorf("with the key of another tenant: %+v", got)
		}
		d.reach[1] = "INNERDOCK_API_KEY=" + r.key
		if got := d.contexts("--rm", "far"); got.code != 0 {
			t.Errorf("%+v", got)
		}
		r.wantNoForwarder(t)
		if got := d.run("", "context", "ls", "--format", "{{.Name}}"); strings.Contains(got, "far") {
			t.Errorf("the contexts are still %q", got)
		}
	})
	t.Run("the end of the sandbox", func(t *testing.T) {
		cmd := r.command(t.Context(), "docker-host", "--foreground", "--publish-address", "127.0.0.1", "far")
		cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR="+r.dir)
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil { // it listens
			t.Fatal(err)
		}
		if _, err := r.client.Terminate(t.Context(), sandbox.ID); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the forwarder ends with %v: %s", err, said.String())
		}
	})
}

// seededOnly makes the registry cache have what it was seeded with, wherever this
// machine can reach.
var seededOnly = []string{"--registry-upstream", "http://127.0.0.1:1"}

// farServer is a server that is reached over TLS.
type farServer struct {
	*server
	address    string
	key, other string // of two tenants
}

func newFarServer(t *testing.T, second byte) *farServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	cert, key := certificate(t)
	r := &farServer{server: ownServer(t, second, append([]string{"--listen", address, "--tls-cert", cert, "--tls-key", key}, seededOnly...)...), address: address}
	if err := r.seed(t.Context()); err != nil {
		t.Fatal(err)
	}
	for tenant, key := range map[string]*string{innerdock.DefaultTenant: &r.key, "other": &r.other} {
		made, err := r.client.CreateKey(t.Context(), innerdock.KeySpec{Tenant: tenant})
		if err != nil {
			t.Fatal(err)
		}
		*key = made.Key
	}
	t.Setenv("SSL_CERT_FILE", cert)
	return r
}

// far runs the innerdock command as on another machine.
func (r *farServer) far(t *testing.T, key string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env = append(os.Environ(), "INNERDOCK_HOST=https://"+r.address, "INNERDOCK_API_KEY="+key, "XDG_RUNTIME_DIR="+r.dir)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run() // its code is looked at
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// wantNoForwarder holds a forwarder that was stopped to leaving nothing.
func (r *farServer) wantNoForwarder(t *testing.T) {
	t.Helper()
	if left, _ := os.ReadDir(filepath.Join(r.dir, "innerdock")); len(left) > 0 {
		t.Errorf("the forwarder left %v", left)
	}
}

// certificate makes one for 127.0.0.1, and its key.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	public, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: public}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

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
	ctx, cancel := context.WithTimeout(d.t.Context(), 10*time.Second)
	defer cancel()
	err := until(ctx, func() error {
		if _, err := d.fetch("18080"); err == nil {
			return fmt.Errorf("a port is there after its container has gone")
		}
		return nil
	})
	if err != nil {
		d.t.Error(err)
	}
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
	events := d.command(d.t.Context(), "docker", "events", "--filter", "event=die", "--format", "{{.Actor.Attributes.name}}")
	logs := d.command(d.t.Context(), "docker", "logs", "-f", "slow")
	d.run("", "run", "-d", "--name", "slow", "busybox:latest", "sh", "-c", "echo one; sleep 2; echo two; sleep 1")
	var said lockedBuffer
	died, err := events.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	logs.Stdout = &said
	for _, cmd := range []*exec.Cmd{events, logs} {
		if err := cmd.Start(); err != nil {
			d.t.Fatal(err)
		}
	}
	if err := logs.Wait(); err != nil || said.String() != "one\ntwo\n" {
		d.t.Errorf("logs -f: %q, %v", said.String(), err)
	}
	line := make([]byte, 5)
	if _, err := io.ReadFull(died, line); string(line) != "slow\n" {
		d.t.Errorf("events: %q, %v", line, err)
	}
	_ = events.Process.Kill()
	_ = events.Wait()
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

// clients is how many leave at once, and others as many files as others may have
// opened meanwhile.
const clients, others = 6, 1

// closing returns a check that what is opened from now on has been closed, in the
// sandbox and in the server.
func (d *dockerClient) closing() (check func()) {
	agent, server := d.open()
	files := func() string {
		return d.server.sh(d.t, d.sandbox.ID, "ls -l /proc/1/fd | sed 's/.* [0-9:]* \\([0-9]* -> \\)/\\1/'")
	}
	before := files()
	return func() {
		// The door keeps connections to the daemon that are idle, for a minute.
		ctx, cancel := context.WithTimeout(d.t.Context(), 90*time.Second)
		defer cancel()
		if err := until(ctx, func() error {
			nowAgent, nowServer := d.open()
			if nowAgent > agent+others || nowServer > server+others {
				return fmt.Errorf("the agent has %d files open and had %d, the server %d and %d", nowAgent, agent, nowServer, server)
			}
			return nil
		}); err != nil {
			d.t.Errorf("%v; the agent's files were\n%s\nand are\n%s", err, before, files())
		}
	}
}

// What a client that is killed while it is attached had open is closed, although
// its container says nothing.
func (d *dockerClient) checkVanishing() {
	check := d.closing()
	for range clients {
		detached, _ := d.open()
		cmd := d.command(d.t.Context(), "docker", "attach", "--sig-proxy=false", "box")
		stdin, err := cmd.StdinPipe()
		if err != nil {
			d.t.Fatal(err)
		}
		defer stdin.Close()
		if err := cmd.Start(); err != nil {
			d.t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(d.t.Context(), 20*time.Second)
		defer cancel()
		if err := until(ctx, func() error {
			if now, _ := d.open(); now <= detached {
				return fmt.Errorf("it is not attached yet")
			}
			return nil
		}); err != nil {
			d.t.Fatal(err)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	check()
}

// Ctrl-C ends a build, and what it runs, and the daemon is well afterwards.
func (d *dockerClient) checkInterrupts() {
	d.file("slow/Dockerfile", "FROM busybox:latest\nRUN sleep 4321\n")
	cmd := d.command(d.t.Context(), "docker", "build", "--progress=plain", "slow")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	running := func() bool {
		processes := d.server.sh(d.t, d.sandbox.ID, "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done 2>/dev/null; true")
		return strings.Contains(processes, "\nsleep 4321 ") || strings.Contains(processes, "\n/bin/sh -c sleep 4321 ")
	}
	ctx, cancel := context.WithTimeout(d.t.Context(), 60*time.Second)
	defer cancel()
	if err := until(ctx, func() error {
		if !running() {
			return fmt.Errorf("the build does not run")
		}
		return nil
	}); err != nil {
		d.t.Fatal(err)
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
	_ = cmd.Wait()
	if cmd.ProcessState.Success() {
		d.t.Error("an interrupted build succeeds")
	}
	if err := until(ctx, func() error {
		if running() {
			return fmt.Errorf("the build runs on")
		}
		return nil
	}); err != nil {
		d.t.Error(err)
	}
	d.run("", "version")
}

// Ctrl-C ends pulls from a registry that stalls in the middle of a layer; the daemon
// alone goes on waiting for it, as natively.
func (d *dockerClient) checkInterruptedPull() {
	registry, err := os.Open("python/faulty_registry.py")
	if err != nil {
		d.t.Fatal(err)
	}
	defer registry.Close()
	if _, err := d.server.client.WriteFile(d.t.Context(), d.sandbox.ID, "/opt/registry.py", 0o644, registry); err != nil {
		d.t.Fatal(err)
	}
	d.server.sh(d.t, d.sandbox.ID, "setsid python3 /opt/registry.py >/tmp/said & until grep -q listening /tmp/said; do sleep 0.1; done")
	check := d.closing()
	ctx, cancel := context.WithTimeout(d.t.Context(), 60*time.Second)
	defer cancel()
	var pulls []*exec.Cmd
	for range clients {
		cmd := d.command(ctx, "docker", "pull", "127.0.0.1:5000/stalled/image:1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		out, err := cmd.StdoutPipe()
		if err != nil {
			d.t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			d.t.Fatal(err)
		}
		pulls = append(pulls, cmd)
		for lines := bufio.NewScanner(out); lines.Scan() && !strings.HasSuffix(lines.Text(), "Pulling fs layer"); {
		}
	}
	for _, cmd := range pulls {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
		_ = cmd.Wait()
		if ctx.Err() != nil || cmd.ProcessState.Success() {
			d.t.Errorf("an interrupted pull ends with %v", cmd.ProcessState)
		}
	}
	check()
	d.run("", "version")
	d.server.sh(d.t, d.sandbox.ID, "pkill -f /opt/registry.p[y]")
}

// dockerScript is a docker command of this machine: that of the root %s.
const dockerScript = `#!/bin/sh
exec unshare --mount sh -c 'mount --make-rprivate / && mount --bind /var/tmp "$0/var/tmp" && exec chroot "$0" /usr/bin/docker "$@"' %s "$@"
`

// contexts runs innerdock docker-context, which finds a docker command.
func (d *dockerClient) contexts(args ...string) result {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, "docker"), fmt.Appendf(nil, dockerScript, d.root), 0o755); err != nil {
		d.t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	cmd := d.server.command(d.t.Context(), append([]string{"docker-context"}, args...)...)
	cmd.Env = append(append(cmd.Env, "HOME="+d.dir, "PATH="+d.dir+":"+os.Getenv("PATH")), d.reach...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run() // its code is looked at
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// A context works without any variable, and is made again as often as one likes.
func (d *dockerClient) checkContext() {
	called := cmp.Or(d.sandbox.Name, d.sandbox.ID)
	name := "innerdock-" + called
	for range 2 {
		if got := d.contexts(d.sandbox.ID); got.code != 0 || got.stdout != name+"\n" {
			d.t.Fatalf("%+v", got)
		}
		if got := d.run("", "--context", name, "info", "--format", "{{.Name}}"); strings.TrimSpace(got) != called {
			d.t.Errorf("the context's daemon is called %q", got)
		}
	}
	if got := d.run("", "context", "inspect", name, "--format", "{{.Endpoints.docker.Host}}"); !strings.HasSuffix(strings.TrimSpace(got), "/"+d.sandbox.ID+".sock") {
		d.t.Errorf("the context leads to %q", got)
	}
}

// A client that waits hears of the sandbox's end, and so does one that comes
// afterwards; a context that leads nowhere can be removed.
func (d *dockerClient) checkEnd() {
	waiting := d.command(d.t.Context(), "docker", "logs", "--follow", "eternal")
	d.run("", "run", "-d", "--name", "eternal", "busybox:latest", "sh", "-c", "echo here; sleep 1000")
	out, err := waiting.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := waiting.Start(); err != nil {
		d.t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("here\n"))); err != nil {
		d.t.Fatal(err)
	}
	if _, err := d.server.client.Terminate(d.t.Context(), d.sandbox.ID); err != nil {
		d.t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out)
	_ = waiting.Wait() // it has ended: that is what counts
	context := "innerdock-" + d.sandbox.ID
	said, err := d.command(d.t.Context(), "docker", "--context", context, "ps").CombinedOutput()
	if err == nil || !strings.Contains(string(said), "docker.sock") && !strings.Contains(string(said), d.sandbox.ID+".sock") {
		d.t.Errorf("after the end docker says %q, %v", said, err)
	}
	if got := d.contexts(d.sandbox.ID); got.code == 0 || !strings.Contains(got.stderr, "terminated") {
		d.t.Errorf("a context of a sandbox that has ended: %+v", got)
	}
	if got := d.contexts("--rm", d.sandbox.ID); got.code != 0 {
		d.t.Errorf("%+v", got)
	}
	if got := d.run("", "context", "ls", "--format", "{{.Name}}"); strings.Contains(got, context) {
		d.t.Errorf("the contexts are still %q", got)
	}
}
