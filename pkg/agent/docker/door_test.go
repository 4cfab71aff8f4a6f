package docker

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/wire"
)

// ask calls the public socket, as a client in the sandbox does.
func (r *rig) ask(path string) (int, string) {
	client := clientOf(r.root + publicSocket)
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://docker" + path)
	if err != nil {
		r.t.Error(err)
		return 0, ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Error(err)
	}
	return resp.StatusCode, string(body)
}

// A call waits for a Docker that is to come, and for one that comes back; one
// that has ended is told of.
func TestCallsWait(t *testing.T) {
	r := newRig(t, "dockerd", "containerd")
	if err := r.s.Open(t.Context(), innerdock.ProfileFull); err != nil || r.s.Report().State != innerdock.DockerStarting {
		t.Fatal(err, r.s.Report())
	}
	var calls sync.WaitGroup
	answers := make(chan string, 2)
	call := func() {
		calls.Go(func() {
			_, body := r.ask("/version")
			answers <- body
		})
	}
	call()
	_, ready, err := r.start(time.Minute, full)
	if err != nil {
		t.Fatal(err)
	}
	calls.Wait()
	if got := <-answers; !strings.Contains(got, ready.Version) {
		t.Errorf("a call before the start was answered %q", got)
	}
	inode := func() uint64 {
		info, err := os.Stat(r.root + publicSocket)
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*syscall.Stat_t).Ino
	}
	before := inode()
	pid, _ := strconv.Atoi(strings.TrimPrefix(ready.Version, "99."))
	syscall.Kill(pid, syscall.SIGKILL)
	await(t, "the end to be noticed", func() bool { return r.s.Report().State == innerdock.DockerRestarting })
	call()
	calls.Wait()
	if got := <-answers; !strings.Contains(got, `"99.`) || strings.Contains(got, ready.Version) {
		t.Errorf("a call between was answered %q", got)
	}
	if inode() != before {
		t.Error("the socket is another one: containers that have it mounted lost theirs")
	}
	conn, err := r.s.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := r.s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status, body := r.ask("/version"); status != http.StatusServiceUnavailable || !strings.Contains(body, `{"message":"Docker does not run in this sandbox`) {
		t.Errorf("after the stop: %d %q", status, body)
	}
}

// A call does not wait longer than its caller, nor for what has failed.
func TestCallsThatWaitInVain(t *testing.T) {
	r := newRig(t, "dockerd", "containerd")
	if err := r.s.Open(t.Context(), innerdock.ProfileFull); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.s.Connect(ctx); innerdock.CodeOf(err) != innerdock.CodeUnavailable || !strings.Contains(err.Error(), "still starting") {
		t.Errorf("while it starts: %v", err)
	}
	r.does("dockerd", "crash")
	if _, _, err := r.start(time.Minute, full); err == nil {
		t.Fatal("it started")
	}
	if status, body := r.ask("/version"); status != http.StatusServiceUnavailable || !strings.Contains(body, "Docker has failed in this sandbox: dockerd exited (exit code 3)") {
		t.Errorf("after it failed: %d %q", status, body)
	}
}

func TestHTTP(t *testing.T) {
	r := newRig(t, "dockerd")
	mux := http.NewServeMux()
	r.s.Register(mux)
	server := httptest.NewServer(mux)
	defer server.Close()
	defer http.DefaultClient.CloseIdleConnections()
	post := func(path, body string) *http.Response {
		resp, err := http.Post(server.URL+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	for _, bad := range []string{"", "x", `{"profile":"large"}`, `{}`} {
		if resp := post(wire.PathDockerStart, bad); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%q: %s", bad, resp.Status)
		}
	}
	resp := post(wire.PathDockerStart, `{"profile":"minimal"}`)
	var last wire.DockerEvent
	events := json.NewDecoder(resp.Body)
	for events.More() {
		last = wire.DockerEvent{}
		if err := events.Decode(&last); err != nil {
			t.Fatal(err)
		}
	}
	if last.Step != wire.StepReady {
		t.Errorf("last: %+v", last)
	}
	get := func(path string) (*http.Response, string) {
		resp, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(body)
	}
	if _, body := get(wire.PathDockerState + "?wait=1&not=starting"); !strings.Contains(body, `"state":"ready"`) {
		t.Errorf("state: %s", body)
	}
	if resp, body := get("/docker/logs?offset=3"); !strings.HasPrefix(body, "gs:") || resp.Header.Get(innerdock.OutputHeader) != "3" {
		t.Errorf("logs: %q %v", body, resp.Header)
	}
	if resp := post(wire.PathDockerStop, ""); resp.StatusCode != http.StatusNoContent {
		t.Errorf("stop: %s", resp.Status)
	}
}
