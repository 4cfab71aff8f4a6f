package worker

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image"
)

// buildScript builds a Dockerfile inside of a builder.
//
//go:embed dockerfile.sh
var buildScript string

const (
	// buildSecrets and buildFiles are where a builder has what is not the cache's:
	// in memory, and on its disk.
	buildSecrets = "/dev/shm/innerdock-build/"
	buildFiles   = "/var/lib/innerdock-build/"
	// stopTime is what a build has to end when it was given up.
	stopTime = 20 * time.Second
	// noRoom is how a full disk shows.
	noRoom = "no space left on device"
)

type imageTaker = func(archive io.Reader) error

// workshop is one build in a builder.
type workshop struct {
	*sandbox
	build  image.DockerfileBuild
	output func(line string)
	spoilt bool // the builder is not to be used again
}

// run builds, and hands the image over. The sandbox's answers are hostile: lines
// are capped where they are read, and the archive by who takes it.
func (w *workshop) run(ctx context.Context, take imageTaker) (err error) {
	id := strings.ToLower(rand.Text())
	files, secrets := buildFiles+id, buildSecrets+id
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		if failure := w.sweep(ctx, files, secrets); failure != nil {
			w.log.Warn("a build left its files behind: its builder ends", "error", failure)
			w.spoilt = true
		}
	}()
	for _, f := range w.inputs() {
		if err := w.agent.writeFile(ctx, secrets+"/"+f.name, strings.NewReader(f.content)); err != nil {
			return err
		}
	}
	archive := ""
	if w.build.Context != nil {
		archive = "archive"
	}
	args := []string{"/bin/sh", "-c", buildScript, "build", files, secrets, archive}
	if w.build.Target != "" {
		args = append(args, "--target", w.build.Target)
	}
	for _, k := range slices.Sorted(maps.Keys(w.build.Args)) {
		args = append(args, "--build-arg", k+"="+w.build.Args[k])
	}
	for _, k := range slices.Sorted(maps.Keys(w.build.Secrets)) {
		args = append(args, "--secret", "id="+k+",src="+secrets+"/secret-"+k)
	}
	if w.build.Pull {
		args = append(args, "--pull")
	}
	code, err := w.process(ctx, args)
	if err == nil && code != 0 {
		err = &image.DockerfileError{ExitCode: code}
	}
	if err != nil {
		return err
	}
	image, err := w.agent.readFile(ctx, files+"/image.tar")
	if err != nil {
		return err
	}
	defer func() { _ = image.Close() }()
	return take(image)
}

type input struct{ name, content string }

// inputs are the small files of a build.
func (w *workshop) inputs() []input {
	all := []input{{"Dockerfile", w.build.Text}}
	if w.build.Accounts != nil {
		all = append(all, input{"config.json", string(w.build.Accounts)})
	}
	for k, v := range w.build.Secrets {
		all = append(all, input{"secret-" + k, v})
	}
	return all
}

// process runs a program of the builder to its end. Its standard input is the
// context. A build that is given up is stopped inside as well.
func (w *workshop) process(ctx context.Context, args []string) (code int, err error) {
	emit := func(line string) {
		w.spoilt = w.spoilt || strings.Contains(strings.ToLower(line), noRoom)
		w.output(line)
	}
	stdout, stderr := lineWriter{emit: emit}, lineWriter{emit: emit}
	var feeding sync.WaitGroup
	feedCtx, stopFeeding := context.WithCancel(ctx)
	pid := 0
	code, err = w.agent.follow(ctx, innerdock.ProcessSpec{Args: args, Cwd: "/", User: "0:0", Stdin: w.build.Context != nil}, func(started int) {
		pid = started
		if w.build.Context != nil {
			feeding.Go(func() { _ = w.agent.feed(feedCtx, started, w.build.Context) }) // else the process says what it lacks
		}
	}, stdout.write, stderr.write)
	stopFeeding()
	if err != nil && pid != 0 {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		if failure := w.agent.stop(ctx, pid, "SIGTERM"); failure != nil {
			w.log.Warn("a build could not be stopped: its builder ends", "error", failure)
			w.spoilt = true
		}
	}
	feeding.Wait()
	stdout.end()
	stderr.end()
	return code, err
}

// sweep removes directories.
func (s *sandbox) sweep(ctx context.Context, dirs ...string) error {
	discard := func([]byte) {}
	_, err := s.agent.execute(ctx, innerdock.ProcessSpec{Args: append([]string{"/bin/rm", "-rf", "--"}, dirs...), Cwd: "/", User: "0:0"}, discard, discard)
	return err
}

// tidy ends what an earlier server did in a builder.
func (s *sandbox) tidy(ctx context.Context) error {
	running, err := s.agent.running(ctx)
	if err != nil {
		return err
	}
	for _, pid := range running {
		if err := s.agent.stop(ctx, pid, "SIGKILL"); err != nil {
			return err
		}
	}
	return s.sweep(ctx, buildFiles, buildSecrets)
}

// feed writes all of content to a process's standard input, and closes that.
func (a agentClient) feed(ctx context.Context, pid int, content io.Reader) error {
	return a.finish(a.do(ctx, http.MethodPost, processPath(pid)+"/stdin?close=true", io.NopCloser(content), nil))
}

// stop signals a process with its group, and waits until it has exited.
func (a agentClient) stop(ctx context.Context, pid int, signal string) error {
	err := a.finish(a.post(ctx, processPath(pid)+"/signal", innerdock.SignalSpec{Signal: signal}, nil))
	for err == nil {
		var process innerdock.Process
		if err = a.get(ctx, processPath(pid)+"?wait=10", &process); process.State == innerdock.ProcessExited {
			return nil
		}
	}
	if code := innerdock.CodeOf(err); code == innerdock.CodeNotFound || code == innerdock.CodeConflict {
		return nil // it has exited
	}
	return err
}

// running are the processes of the API that have not exited.
func (a agentClient) running(ctx context.Context) ([]int, error) {
	var list struct{ Processes []innerdock.Process }
	if err := a.get(ctx, "/processes", &list); err != nil {
		return nil, err
	}
	var pids []int
	for _, p := range list.Processes {
		if p.State == innerdock.ProcessRunning {
			pids = append(pids, p.PID)
		}
	}
	return pids, nil
}

// writeFile makes a file that root alone may read.
func (a agentClient) writeFile(ctx context.Context, path string, content io.Reader) error {
	query := url.Values{"path": {path}, "mode": {"0600"}}
	return a.finish(a.do(ctx, http.MethodPut, "/files/content?"+query.Encode(), content, nil))
}

// readFile opens a file, which the caller closes.
func (a agentClient) readFile(ctx context.Context, path string) (io.ReadCloser, error) {
	resp, err := a.do(ctx, http.MethodGet, "/files/content?"+url.Values{"path": {path}}.Encode(), nil, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

func (a agentClient) get(ctx context.Context, path string, into any) error {
	resp, err := a.do(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxReply)).Decode(into); err != nil {
		return innerdock.Errorf(innerdock.CodeUnavailable, "the sandbox's agent sent an unreadable answer: %w", err)
	}
	return nil
}

// finish drops a reply's body.
func (a agentClient) finish(resp *http.Response, err error) error {
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxReply))
	return errors.Join(err, resp.Body.Close())
}

func processPath(pid int) string { return "/processes/" + strconv.Itoa(pid) }
