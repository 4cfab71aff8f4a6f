package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/innerdock/innerdock"
)

// life is what a sandbox goes through from its creation on. Its end is not its own.
type life struct {
	name string
	live func(*walk, context.Context) error
}

var lives = []life{
	{"plain", (*walk).plain},
	{"files", (*walk).files},
	{"docker", (*walk).docker},
	{"tunnel", (*walk).tunnel},
	{"fork", (*walk).fork},
	{"snapshot", (*walk).snapshot},
	{"pause", (*walk).pause},
	{"given-up", (*walk).givenUp},
	{"leaver", (*walk).leaver},
	{"suicide", (*walk).suicide},
	{"hoarder", (*walk).hoarder},
}

// lifetime is the longest that a life may take, a killed server and a busy machine
// included.
const lifetime = 10 * time.Minute

// walk is one life.
type walk struct {
	*soak
	random *rand.Rand
	made   []string // sandboxes
	snaps  []string // snapshots
}

// live lives one life and counts it.
func (s *soak) live(ctx context.Context, l life, random *rand.Rand) {
	ctx, cancel := context.WithTimeout(ctx, lifetime)
	defer cancel()
	w := &walk{soak: s, random: random}
	s.up.RLock()
	began, kills := time.Now(), s.kills.Load()
	s.up.RUnlock()
	err := l.live(w, ctx)
	cut := err != nil && s.kills.Load() != kills && innerdock.CodeOf(err) == innerdock.CodeUnavailable
	if cut {
		err = nil
	}
	err = errors.Join(err, w.end(ctx))
	s.note(l.name, time.Since(began), err, cut && err == nil)
}

// end ends what a life has made, whether or not the server is there yet.
func (w *walk) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	return until(ctx, func() error {
		var err error
		for _, id := range w.snaps {
			if failure := w.client.DeleteSnapshot(ctx, id); innerdock.CodeOf(failure) != innerdock.CodeNotFound {
				err = errors.Join(err, failure)
			}
		}
		for _, id := range w.made {
			if _, failure := w.client.TerminateWithin(ctx, id, 0); failure != nil {
				err = errors.Join(err, failure)
			} else {
				err = errors.Join(err, w.noTrace(ctx, id))
			}
		}
		return err
	})
}

// create makes a sandbox, with Docker that answers.
func (w *walk) create(ctx context.Context, spec innerdock.SandboxSpec) (string, error) {
	if spec.Snapshot == "" {
		spec.Image = w.image
	}
	sandbox, err := w.client.CreateSandbox(ctx, spec)
	if err != nil {
		return "", err
	}
	w.made = append(w.made, sandbox.ID)
	if sandbox.Docker.State != innerdock.DockerDisabled {
		_, err = w.client.WaitDocker(ctx, sandbox.ID)
	}
	return sandbox.ID, err
}

var withDocker = innerdock.DockerSpec{Enabled: true}

// sh runs a script that must succeed, and returns what it printed.
func (w *walk) sh(ctx context.Context, id, script string) (string, error) {
	var stdout, stderr bytes.Buffer
	process, err := w.client.Exec(ctx, id, innerdock.ProcessSpec{Args: []string{"sh", "-c", script}}, innerdock.Streams{Stdout: &stdout, Stderr: &stderr})
	if err == nil && *process.ExitCode != 0 {
		err = fmt.Errorf("%s: exit code %d: %.500s", script, *process.ExitCode, stderr.String())
	}
	return stdout.String(), err
}

// says is an error unless a script prints what is wanted, among other things.
func (w *walk) says(ctx context.Context, id, script, want string) error {
	got, err := w.sh(ctx, id, script)
	if err == nil && !strings.Contains(got, want) {
		err = fmt.Errorf("%s: printed %.500q and not %q", script, got, want)
	}
	return err
}

func (w *walk) plain(ctx context.Context) error {
	id, err := w.create(ctx, innerdock.SandboxSpec{Memory: "256Mi"})
	if err != nil {
		return err
	}
	return w.says(ctx, id, "python3 -c 'print(6*7)'", "42\n")
}

// files go in and out as they are, and so does a long output.
func (w *walk) files(ctx context.Context) error {
	id, err := w.create(ctx, innerdock.SandboxSpec{Memory: "512Mi"})
	if err != nil {
		return err
	}
	content := bytes.Repeat([]byte{byte(w.random.Uint32()), 2, 3, 4}, 1<<20+w.random.IntN(1<<20))
	want := fmt.Sprintf("%x", sha256.Sum256(content))
	if _, err := w.client.WriteFile(ctx, id, "big", 0o644, bytes.NewReader(content)); err != nil {
		return err
	}
	if err := w.says(ctx, id, "sha256sum big", want); err != nil {
		return err
	}
	file, err := w.client.ReadFile(ctx, id, "big")
	if err != nil {
		return err
	}
	hash := sha256.New()
	_, err = io.Copy(hash, file)
	if err := errors.Join(err, file.Close()); err != nil {
		return innerdock.Errorf(innerdock.CodeUnavailable, "reading a file: %w", err)
	}
	if got := fmt.Sprintf("%x", hash.Sum(nil)); got != want {
		return fmt.Errorf("a file came back as %s, and is %s", got, want)
	}
	printed, err := w.sh(ctx, id, "head -c 5000000 big")
	if err == nil && printed != string(content[:min(len(content), 5000000)]) {
		err = fmt.Errorf("%d bytes of output came changed", len(printed))
	}
	return err
}

// docker runs, builds and publishes.
func (w *walk) docker(ctx context.Context) error {
	id, err := w.create(ctx, innerdock.SandboxSpec{Docker: withDocker, CPU: 2, Memory: "2Gi"})
	if err != nil {
		return err
	}
	if err := w.says(ctx, id, "docker run --rm hello-world", "Hello from Docker!"); err != nil {
		return err
	}
	if err := w.says(ctx, id, `set -e
mkdir -p app
printf 'FROM busybox\nRUN echo made > /made\nCMD httpd -f -p 80 -h /\n' > app/Dockerfile
docker build -q -t app app
docker run -d --name app -p 8080:80 app
python3 -c '
import time, urllib.request
for _ in range(100):
    try:
        print(urllib.request.urlopen("http://127.0.0.1:8080/made").read().decode())
        break
    except OSError:
        time.sleep(0.1)'`, "made\n"); err != nil {
		return err
	}
	return w.says(ctx, id, "docker network create other && docker run --rm --network other busybox echo there; docker rm -f app; docker system prune -af", "there")
}

// tunnel speaks to Docker as a client does.
func (w *walk) tunnel(ctx context.Context) error {
	id, err := w.create(ctx, innerdock.SandboxSpec{Docker: withDocker, Memory: "1Gi"})
	if err != nil {
		return err
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return w.client.DialDocker(ctx, id) }}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for range 20 {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/_ping", nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return innerdock.Errorf(innerdock.CodeUnavailable, "docker's ping: %w", err)
		}
		said, err := io.ReadAll(response.Body)
		if err = errors.Join(err, response.Body.Close()); err != nil {
			return innerdock.Errorf(innerdock.CodeUnavailable, "docker's ping: %w", err)
		}
		if string(said) != "OK" {
			return fmt.Errorf("docker's ping was answered with %s %.100q", response.Status, said)
		}
	}
	return nil
}

// begun is a program that counts in its memory, whatever becomes of the sandbox.
const begun = `cat > count.py <<'END'
import pathlib, time
n = 0
while True:
    n += 1
    pathlib.Path("n").write_text(str(n))
    time.sleep(0.05)
END
nohup python3 count.py > /dev/null 2>&1 &
until [ -s n ]; do sleep 0.01; done`

// counts is an error unless that program goes on.
func (w *walk) counts(ctx context.Context, id string) error {
	return w.says(ctx, id, `from=$(cat n); for i in $(seq 200); do now=$(cat n); [ "${now:-0}" -gt "${from:-0}" ] && echo on && break; sleep 0.05; done`, "on\n")
}

func (w *walk) fork(ctx context.Context) error {
	id, err := w.create(ctx, innerdock.SandboxSpec{Memory: "256Mi"})
	if err != nil {
		return err
	}
	if _, err := w.sh(ctx, id, begun); err != nil {
		return err
	}
	copies, err := w.client.Fork(ctx, id, 1+w.random.IntN(4))
	if err != nil {
		return err
	}
	for _, one := range copies {
		w.made = append(w.made, one.ID)
	}
	for _, one := range w.made {
		if err := w.counts(ctx, one); err != nil {
			return err
		}
	}
	return nil
}

// snapshot keeps a sandbox whose container runs, and goes on from it.
func (w *walk) snapshot(ctx context.Context) error {
	id, err := w.create(ctx, innerdock.SandboxSpec{Docker: withDocker, Memory: "1Gi"})
	if err != nil {
		return err
	}
	if _, err := w.sh(ctx, id, "docker run -d --name kept busybox sleep 1d"); err != nil {
		return err
	}
	snapshot, err := w.client.Snapshot(ctx, id, innerdock.SnapshotSpec{})
	if err != nil {
		return err
	}
	w.snaps = append(w.snaps, snapshot.ID)
	again, err := w.create(ctx, innerdock.SandboxSpec{Snapshot: snapshot.ID})
	if err != nil {
		return err
	}
	for _, one := range []string{id, again} {
		if err := w.says(ctx, one, "docker exec kept echo on; docker rm -f kept", "on\n"); err != nil {
			return err
		}
	}
	return nil
}

// pause pauses in memory and to the disk.
func (w *walk) pause(ctx context.Context) error {
	id, err := w.create(ctx, innerdock.SandboxSpec{Memory: "256Mi"})
	if err != nil {
		return err
	}
	if _, err := w.sh(ctx, id, begun); err != nil {
		return err
	}
	for _, pause := range []func(context.Context, string) (innerdock.Sandbox, error){w.client.Pause, w.client.PauseToDisk} {
		if _, err := pause(ctx, id); err != nil {
			return err
		}
		if _, err := w.client.Resume(ctx, id); err != nil {
			return err
		}
		if err := w.counts(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// givenUp is a creation that its client gives up at some moment.
func (w *walk) givenUp(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, time.Duration(w.random.IntN(400))*time.Millisecond)
	defer cancel()
	_, err := w.create(within, innerdock.SandboxSpec{Memory: "256Mi"})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// leaver has a client that leaves in the middle of an output.
func (w *walk) leaver(ctx context.Context) error {
	id, err := w.create(ctx, innerdock.SandboxSpec{Memory: "256Mi"})
	if err != nil {
		return err
	}
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	_, err = w.client.Exec(within, id, innerdock.ProcessSpec{Args: []string{"yes"}}, innerdock.Streams{Stdout: leaving{cancel}})
	if !errors.Is(err, context.Canceled) {
		return errors.Join(errors.New("yes has ended"), err)
	}
	return w.says(ctx, id, "pgrep -c yes; pkill yes && echo ended", "1\nended\n")
}

// leaving leaves at the first byte.
type leaving struct{ leave func() }

func (l leaving) Write(p []byte) (int, error) { l.leave(); return len(p), nil }

// suicide ends the sandbox from inside.
func (w *walk) suicide(ctx context.Context) error {
	id, err := w.create(ctx, innerdock.SandboxSpec{Memory: "256Mi"})
	if err != nil {
		return err
	}
	_, _ = w.client.Exec(ctx, id, innerdock.ProcessSpec{Args: []string{"python3", "-c", "import os; os.kill(1, 15); os.kill(1, 9)"}}, innerdock.Streams{})
	ended, err := w.client.Wait(ctx, id)
	if err == nil && !ended.State.Ended() {
		err = fmt.Errorf("a sandbox whose first process was killed is %s", ended.State)
	}
	return err
}

// hoarder takes more memory than there is, and lives on without the program that did;
// or ends whole and says why, where the host's kernel was first.
func (w *walk) hoarder(ctx context.Context) error {
	id, err := w.create(ctx, innerdock.SandboxSpec{Memory: "256Mi"})
	if err != nil {
		return err
	}
	began := time.Now()
	err = w.says(ctx, id, `python3 -c 'b = bytearray(1 << 30)
for i in range(0, len(b), 4096): b[i] = 1'; echo $?`, "137\n")
	if err == nil {
		return nil
	}
	ended, failure := w.client.Sandbox(ctx, id)
	if failure == nil && ended.State == innerdock.StateFailed && strings.Contains(ended.Reason, "out of memory") {
		w.note("hoarder that ended whole", time.Since(began), nil, false)
		return nil
	}
	return errors.Join(err, failure)
}
