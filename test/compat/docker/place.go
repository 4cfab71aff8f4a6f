package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/test/native"
)

// Sandbox is a place in a sandbox.
type Sandbox struct {
	client  *innerdock.Client
	id      string
	outside string
}

// NewSandbox creates a sandbox of an image with Docker, as users do.
func NewSandbox(ctx context.Context, client *innerdock.Client, image string, profile innerdock.DockerProfile) (*Sandbox, error) {
	sandbox, err := client.CreateSandbox(ctx, innerdock.SandboxSpec{
		Image: image, CPU: 2, Memory: "4Gi", Docker: innerdock.DockerSpec{Enabled: true, Profile: profile}})
	if err != nil {
		return nil, err
	}
	s := &Sandbox{client: client, id: sandbox.ID}
	if err := s.ready(ctx); err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	return s, nil
}

// ready waits for Docker, and takes the registry cache for the server outside.
func (s *Sandbox) ready(ctx context.Context) error {
	if _, err := s.client.WaitDocker(ctx, s.id); err != nil {
		return err
	}
	var out bytes.Buffer
	exit, err := s.Exec(ctx, &out, "docker", "info", "--format", "{{index .RegistryConfig.Mirrors 0}}")
	if err != nil || exit != 0 {
		return fmt.Errorf("asking for the registry cache: exit code %d: %w: %s", exit, err, out.String())
	}
	s.outside = strings.TrimSpace(out.String()) + "v2/"
	return nil
}

// Exec implements Place.
func (s *Sandbox) Exec(ctx context.Context, out io.Writer, args ...string) (int, error) {
	process, err := s.client.Exec(ctx, s.id, innerdock.ProcessSpec{Args: args, Cwd: "/"}, innerdock.Streams{Stdout: out, Stderr: out})
	if err != nil {
		return 0, err
	}
	return *process.ExitCode, nil
}

// Put implements Place.
func (s *Sandbox) Put(ctx context.Context, path string, mode uint32, content io.Reader) error {
	if _, err := s.client.MakeDirectory(ctx, s.id, filepath.Dir(path), 0o755); err != nil {
		return err
	}
	_, err := s.client.WriteFile(ctx, s.id, path, mode, content)
	return err
}

// Outside implements Place.
func (s *Sandbox) Outside() string { return s.outside }

// Log is the daemon's.
func (s *Sandbox) Log(ctx context.Context) ([]byte, error) { return s.client.DockerLogs(ctx, s.id) }

// Close terminates the sandbox.
func (s *Sandbox) Close(ctx context.Context) error {
	_, err := s.client.Terminate(context.WithoutCancel(ctx), s.id)
	return err
}

// Native is a place on this machine's own kernel.
type Native struct {
	docker  *native.Docker
	outside *exec.Cmd // in a network namespace of its own
}

// The network between the native Docker and the server outside.
const (
	insideAddress  = "192.0.2.1/30"
	outsideAddress = "192.0.2.2"
)

// NewNative starts the Docker of a root, and a server that is outside for it.
func NewNative(ctx context.Context, erofs string, kit Kit, flags ...string) (_ *Native, err error) {
	n := &Native{}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if n.docker, err = native.Start(ctx, erofs, flags...); err != nil {
		return n, err
	}
	return n, n.connect(ctx, kit)
}

// connect puts the tool's HTTP server into a namespace at the other end of a veth.
func (n *Native) connect(ctx context.Context, kit Kit) error {
	if err := n.Put(ctx, "/usr/local/bin/tool", 0o755, bytes.NewReader(kit.Tool)); err != nil {
		return err
	}
	tool := n.docker.Path("/usr/local/bin/tool")
	n.outside = exec.Command("/bin/sh", "-c", "read connected && exec "+tool+" http "+outsideAddress+":80 outside")
	n.outside.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	stdin, err := n.outside.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := n.outside.StdoutPipe()
	if err != nil {
		return err
	}
	if err := n.outside.Start(); err != nil {
		return err
	}
	peer := strconv.Itoa(n.outside.Process.Pid)
	inside := []string{"-t", strconv.Itoa(n.docker.PID()), "-n", "ip"}
	outside := []string{"-t", peer, "-n", "ip"}
	for _, args := range [][]string{
		append(inside, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", peer),
		append(inside, "address", "add", insideAddress, "dev", "eth0"),
		append(inside, "link", "set", "eth0", "up"),
		append(inside, "route", "add", "default", "via", outsideAddress),
		append(outside, "address", "add", outsideAddress+"/30", "dev", "eth0"),
		append(outside, "link", "set", "eth0", "up"),
	} {
		if out, err := exec.CommandContext(ctx, "nsenter", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("nsenter %q: %w: %s", args, err, out)
		}
	}
	if _, err := io.WriteString(stdin, "\n"); err != nil {
		return err
	}
	line := make([]byte, len("ready\n"))
	_, err = io.ReadFull(stdout, line)
	return err
}

// Exec implements Place.
func (n *Native) Exec(ctx context.Context, out io.Writer, args ...string) (int, error) {
	cmd := n.docker.Command(ctx, args...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = time.Second // what it left in the background holds its output open
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return exit.ExitCode(), nil
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		return cmd.ProcessState.ExitCode(), nil
	}
	return 0, err
}

// Put implements Place.
func (n *Native) Put(_ context.Context, path string, mode uint32, content io.Reader) error {
	path = n.docker.Path(path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, os.FileMode(mode))
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path) // it may be running
}

// Outside implements Place.
func (n *Native) Outside() string { return "http://" + outsideAddress + "/v2/" }

// Close ends the Docker and the server.
func (n *Native) Close() error {
	if n.outside != nil && n.outside.Process != nil {
		_ = n.outside.Process.Kill()
		_ = n.outside.Wait()
	}
	return n.docker.Stop()
}
