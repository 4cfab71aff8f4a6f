package process

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/child"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a process table behind a real HTTP server.
type rig struct {
	t     *testing.T
	table *Table
	dir   string
	url   string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context())) // until the cleanup
	reaper := &child.Reaper{}
	var reaping sync.WaitGroup
	reaping.Go(func() { reaper.Run(ctx) })
	dir := t.TempDir()
	table := NewTable(reaper, "", Defaults{Dir: dir, Env: map[string]string{"PATH": "/usr/local/bin:/usr/bin:/bin", "BASE": "base"}})
	mux := http.NewServeMux()
	table.Register(mux)
	server := httptest.NewServer(mux)
	t.Cleanup(func() {
		table.Close(time.Second)
		server.CloseClientConnections()
		server.Close()
		cancel()
		reaping.Wait()
		http.DefaultClient.CloseIdleConnections()
	})
	return &rig{t, table, dir, server.URL}
}

func (r *rig) do(method, path, body string, header ...string) (*http.Response, []byte) {
	r.t.Helper()
	req, err := http.NewRequest(method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if len(header) == 2 {
		req.Header.Set(header[0], header[1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp, answer
}

func (r *rig) exec(query string, spec innerdock.ProcessSpec) innerdock.Process {
	r.t.Helper()
	body, _ := json.Marshal(spec)
	resp, answer := r.do("POST", "/processes"+query, string(body))
	if resp.StatusCode != http.StatusCreated {
		r.t.Fatalf("exec %q: %s %s", spec.Args, resp.Status, answer)
	}
	return decode[innerdock.Process](r.t, answer)
}

func (r *rig) sh(script string) innerdock.Process {
	r.t.Helper()
	return r.exec("?wait=true", innerdock.ProcessSpec{Args: []string{"sh", "-c", script}})
}

func (r *rig) out(p innerdock.Process, stream string) string {
	r.t.Helper()
	_, body := r.do("GET", fmt.Sprintf("/processes/%d/%s", p.PID, stream), "")
	return string(body)
}

func decode[T any](t *testing.T, body []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return v
}

type event struct {
	name string
	data innerdock.OutputEvent
}

// events reads a stream of events, until each returns false or it ends.
func events(t *testing.T, r io.Reader, each func(event) bool) {
	t.Helper()
	lines := bufio.NewReaderSize(r, 1<<20)
	name := ""
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\n")
		if n, ok := strings.CutPrefix(line, "event: "); ok {
			name = n
		}
		if d, ok := strings.CutPrefix(line, "data: "); ok {
			if !each(event{name, decode[innerdock.OutputEvent](t, []byte(d))}) {
				return
			}
		}
	}
}

// waitFor waits until the standard output holds s and returns it.
func (r *rig) waitFor(p innerdock.Process, s string) (got string) {
	r.t.Helper()
	await(r.t, fmt.Sprintf("%q in the output", s), func() bool {
		got = r.out(p, "stdout")
		return strings.Contains(got, s)
	})
	return got
}

// touch makes a file that a process waits for, where processes start.
func (r *rig) touch(name string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), nil, 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("timed out: ", what)
		}
	}
}
