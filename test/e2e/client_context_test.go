package e2e

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

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
