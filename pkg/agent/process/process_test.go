package process

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
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

func TestExitCodesAndStreams(t *testing.T) {
	r := newRig(t)
	p := r.sh(`echo out; echo err >&2; exit 7`)
	if p.State != innerdock.ProcessExited || *p.ExitCode != 7 || p.Signal != "" || p.ExitedAt == nil {
		t.Errorf("process: %+v", p)
	}
	if out, errs := r.out(p, "stdout"), r.out(p, "stderr"); out != "out\n" || errs != "err\n" {
		t.Errorf("stdout %q, stderr %q", out, errs)
	}
	if p.Stdout != 4 || p.Stderr != 4 {
		t.Errorf("bytes: %d, %d", p.Stdout, p.Stderr)
	}
	p = r.sh(`kill -9 $$`)
	if *p.ExitCode != 137 || p.Signal != "SIGKILL" {
		t.Errorf("killed: %+v", p)
	}
	if code, exited, err := r.table.Status(p.PID); code != 137 || !exited || err != nil {
		t.Errorf("Status: %d, %v, %v", code, exited, err)
	}
}

func TestEnvironmentAndDirectory(t *testing.T) {
	r := newRig(t)
	os.Mkdir(filepath.Join(r.dir, "sub"), 0o755)
	p := r.exec("?wait=true", innerdock.ProcessSpec{Args: []string{"sh", "-c", `pwd; echo $BASE $MORE $PATH`}, Cwd: "sub",
		Env: map[string]string{"MORE": "more", "PATH": "/usr/bin:/bin"}})
	want := filepath.Join(r.dir, "sub") + "\nbase more /usr/bin:/bin\n"
	if got := r.out(p, "stdout"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if p := r.sh("cat"); *p.ExitCode != 0 { // its input is empty
		t.Errorf("cat: %+v", p)
	}
}

func TestLookupUsesThePathOfTheProcess(t *testing.T) {
	r := newRig(t)
	os.Mkdir(filepath.Join(r.dir, "bin"), 0o755)
	os.WriteFile(filepath.Join(r.dir, "bin", "mine"), []byte("#!/bin/sh\necho mine $0"), 0o755)
	for _, spec := range []innerdock.ProcessSpec{
		{Args: []string{"mine"}, Env: map[string]string{"PATH": "/nowhere:" + r.dir + "/bin"}},
		{Args: []string{"mine"}, Env: map[string]string{"PATH": "bin"}},
		{Args: []string{"bin/mine"}},
		{Args: []string{"./mine"}, Cwd: "bin"},
	} {
		p := r.exec("?wait=true", spec)
		if got := r.out(p, "stdout"); !strings.HasPrefix(got, "mine ") {
			t.Errorf("%+v: %q", spec, got)
		}
	}
}

func TestWhatCannotStart(t *testing.T) {
	r := newRig(t)
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(r.dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain, noShebang := write("plain", "x", 0o644), write("noshebang", "echo hi", 0o755)
	badLoader := write("badloader", "#!/no/such/interpreter\n", 0o755)
	for _, c := range []struct {
		body string
		code innerdock.Code
		says string
	}{
		{`{"args":["no-such-command-anywhere"]}`, innerdock.CodeCommandNotFound, "no-such-command-anywhere"},
		{`{"args":["/no/such/file"]}`, innerdock.CodeCommandNotFound, "/no/such/file"},
		{`{"args":["sh"],"env":{"PATH":""}}`, innerdock.CodeCommandNotFound, "sh"},
		{`{"args":["` + plain + `"]}`, innerdock.CodeInvalid, "not executable"},
		{`{"args":["` + r.dir + `/"]}`, innerdock.CodeInvalid, "directory"},
		{`{"args":["` + noShebang + `"]}`, innerdock.CodeInvalid, "#!"},
		{`{"args":["` + badLoader + `"]}`, innerdock.CodeInvalid, "interpreter"},
		{`{"args":["sh"],"cwd":"/no/such/dir"}`, innerdock.CodeInvalid, "/no/such/dir"},
		{`{"args":["sh"],"cwd":"/etc/passwd"}`, innerdock.CodeInvalid, "not a directory"},
		{`{"args":[]}`, innerdock.CodeInvalid, "args"},
		{`{"args":[""]}`, innerdock.CodeInvalid, "args"},
		{`{"args":["sh\u0000"]}`, innerdock.CodeInvalid, "zero byte"},
		{`{"args":["sh","\u0000"]}`, innerdock.CodeInvalid, "zero byte"},
		{`{"args":["sh"],"env":{"A=B":"c"}}`, innerdock.CodeInvalid, "A=B"},
		{`{"args":["sh"],"env":{"A":"\u0000"}}`, innerdock.CodeInvalid, "zero byte"},
		{`{"args":["sh","` + strings.Repeat("x", 3<<20) + `"]}`, innerdock.CodeTooLarge, "too long"},
		{`{"args":["` + strings.Repeat("x", maxSpec) + `"]}`, innerdock.CodeTooLarge, "over"},
		{`{"args":"sh"}`, innerdock.CodeInvalid, "JSON"},
		{`nonsense`, innerdock.CodeInvalid, "JSON"},
	} {
		resp, body := r.do("POST", "/processes", c.body)
		e := decode[innerdock.Error](t, body)
		if e.Code != c.code || resp.StatusCode != c.code.Status() || !strings.Contains(e.Message, c.says) {
			t.Errorf("%.60s: %s %s, want %s with %q", c.body, resp.Status, body, c.code, c.says)
		}
	}
	if list := r.table.List(); len(list) != 0 {
		t.Errorf("left in the table: %+v", list)
	}
}

func TestBadRequests(t *testing.T) {
	r := newRig(t)
	p := r.exec("", innerdock.ProcessSpec{Args: []string{"sleep", "60"}})
	pid := fmt.Sprint("/processes/", p.PID)
	for _, c := range []struct {
		method, path, body string
		code               innerdock.Code
	}{
		{"GET", "/processes/nonsense", "", innerdock.CodeInvalid},
		{"GET", "/processes/-1", "", innerdock.CodeInvalid},
		{"GET", "/processes/999999999", "", innerdock.CodeNotFound},
		{"GET", pid + "?wait=soon", "", innerdock.CodeInvalid},
		{"GET", pid + "?wait=NaN", "", innerdock.CodeInvalid},
		{"GET", pid + "?wait=-1", "", innerdock.CodeInvalid},
		{"GET", pid + "/stdout?offset=-1", "", innerdock.CodeInvalid},
		{"GET", pid + "/stdout?offset=99999999999999999999", "", innerdock.CodeInvalid},
		{"GET", pid + "/output?stderr_offset=x", "", innerdock.CodeInvalid},
		{"POST", pid + "/signal", `{"signal":"SIGNONSENSE"}`, innerdock.CodeInvalid},
		{"POST", pid + "/signal", `{"signal":"0"}`, innerdock.CodeInvalid},
		{"POST", pid + "/signal", `{"signal":"-9"}`, innerdock.CodeInvalid},
		{"POST", pid + "/stdin", "x", innerdock.CodeConflict},
		{"POST", pid + "/stdin?close=perhaps", "x", innerdock.CodeInvalid},
		{"POST", "/processes?wait=perhaps", `{"args":["true"]}`, innerdock.CodeInvalid},
	} {
		resp, body := r.do(c.method, c.path, c.body)
		if e := decode[innerdock.Error](t, body); e.Code != c.code || e.Message == "" {
			t.Errorf("%s %s: %s %s", c.method, c.path, resp.Status, body)
		}
	}
}

func TestLongPoll(t *testing.T) {
	r := newRig(t)
	p := r.exec("", innerdock.ProcessSpec{Args: []string{"sleep", "0.3"}})
	_, body := r.do("GET", fmt.Sprintf("/processes/%d?wait=0.05", p.PID), "")
	if p := decode[innerdock.Process](t, body); p.State != innerdock.ProcessRunning || p.ExitCode != nil {
		t.Errorf("before its end: %s", body)
	}
	_, body = r.do("GET", fmt.Sprintf("/processes/%d?wait=30", p.PID), "")
	if p := decode[innerdock.Process](t, body); p.State != innerdock.ProcessExited || *p.ExitCode != 0 {
		t.Errorf("after its end: %s", body)
	}
}

func TestSignalReachesTheGroup(t *testing.T) {
	r := newRig(t)
	p := r.exec("", innerdock.ProcessSpec{Args: []string{"sh", "-c", `sleep 61 & echo $!; wait`}})
	child := strings.TrimSpace(r.waitFor(p, "\n"))
	resp, body := r.do("POST", fmt.Sprintf("/processes/%d/signal", p.PID), `{"signal":"SIGKILL"}`)
	if resp.StatusCode != http.StatusNoContent {
		t.Fatalf("signal: %s %s", resp.Status, body)
	}
	r.do("GET", fmt.Sprintf("/processes/%d?wait=10", p.PID), "")
	await(t, "the end of the child "+child, func() bool {
		stat, err := os.ReadFile("/proc/" + child + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
	resp, body = r.do("POST", fmt.Sprintf("/processes/%d/signal", p.PID), `{"signal":"term"}`)
	if e := decode[innerdock.Error](t, body); e.Code != innerdock.CodeConflict {
		t.Errorf("signal after the end: %s %s", resp.Status, body)
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

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("timed out: ", what)
		}
	}
}

func TestStdin(t *testing.T) {
	r := newRig(t)
	p := r.exec("", innerdock.ProcessSpec{Args: []string{"cat"}, Stdin: true})
	path := fmt.Sprintf("/processes/%d/stdin", p.PID)
	r.do("POST", path, "one ")
	r.waitFor(p, "one ")
	big := strings.Repeat("0123456789abcdef", 1<<18) // 4 MiB, far more than a pipe holds
	if resp, body := r.do("POST", path+"?close=true", big); resp.StatusCode != http.StatusNoContent {
		t.Fatalf("%s %s", resp.Status, body)
	}
	_, body := r.do("GET", fmt.Sprintf("/processes/%d?wait=10", p.PID), "")
	if got := decode[innerdock.Process](t, body); got.State != innerdock.ProcessExited || got.Stdout != int64(len("one ")+len(big)) {
		t.Errorf("cat: %s", body)
	}
	if got := r.out(p, "stdout"); got != "one "+big {
		t.Errorf("cat gave %d bytes", len(got))
	}
	resp, body := r.do("POST", path, "late")
	if e := decode[innerdock.Error](t, body); e.Code != innerdock.CodeConflict {
		t.Errorf("stdin after the end: %s %s", resp.Status, body)
	}
}

func TestStdinOfAProcessThatDoesNotRead(t *testing.T) {
	r := newRig(t)
	p := r.exec("", innerdock.ProcessSpec{Args: []string{"sleep", "60"}, Stdin: true})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "POST", fmt.Sprintf("%s/processes/%d/stdin", r.url, p.PID), strings.NewReader(strings.Repeat("x", 1<<20)))
	if _, err := http.DefaultClient.Do(req); err == nil {
		t.Error("1 MiB went into a pipe that nobody reads")
	}
	r.do("POST", fmt.Sprintf("/processes/%d/signal", p.PID), `{"signal":"9"}`) // and the next request is not stuck
}

func TestBinaryOutput(t *testing.T) {
	r := newRig(t)
	all := make([]byte, 256*40)
	for i := range all {
		all[i] = byte(i)
	}
	file := filepath.Join(r.dir, "all")
	os.WriteFile(file, all, 0o644)
	p := r.exec("?wait=true", innerdock.ProcessSpec{Args: []string{"cat", file}})
	if got := r.out(p, "stdout"); got != string(all) {
		t.Error("raw output differs")
	}
	var got []byte
	resp, err := http.Get(fmt.Sprintf("%s/processes/%d/output", r.url, p.PID))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	events(t, resp.Body, func(e event) bool { got = append(got, e.data.Data...); return true })
	if !bytes.Equal(got, all) {
		t.Error("output by events differs")
	}
}

func TestHundredMegabytes(t *testing.T) {
	r := newRig(t)
	const size = 100 << 20
	p := r.exec("?wait=true", innerdock.ProcessSpec{Args: []string{"sh", "-c", fmt.Sprintf("yes 0123456789abcdef | head -c %d; printf end", size)}})
	if *p.ExitCode != 0 || p.Stdout != size+3 {
		t.Fatalf("process: %+v", p)
	}
	resp, body := r.do("GET", fmt.Sprintf("/processes/%d/stdout?offset=5", p.PID), "")
	if at := resp.Header.Get(innerdock.OutputHeader); at != strconv.Itoa(size+3-BufferSize) || len(body) != BufferSize {
		t.Errorf("kept %d bytes from %s", len(body), at)
	}
	if !bytes.HasSuffix(body, []byte("end")) {
		t.Error("the end is not at the end")
	}
}

func TestEventsFromTheStart(t *testing.T) {
	r := newRig(t)
	req, _ := http.NewRequest("POST", r.url+"/processes", strings.NewReader(`{"args":["sh","-c","echo a; sleep 0.1; echo b >&2; sleep 0.1; echo c; exit 3"]}`))
	req.Header.Set("Accept", "text/event-stream")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got []string
	events(t, resp.Body, func(e event) bool {
		got = append(got, fmt.Sprintf("%s %d %q", e.name, e.data.Offset, e.data.Data))
		if e.name == "exit" && *e.data.Process.ExitCode != 3 {
			t.Errorf("exit: %+v", e.data.Process)
		}
		if e.name == "started" && e.data.Process.PID == 0 {
			t.Errorf("started: %+v", e.data.Process)
		}
		return true
	})
	want := []string{`started 0 ""`, `stdout 0 "a\n"`, `stderr 0 "b\n"`, `stdout 2 "c\n"`, `exit 0 ""`}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q", got)
	}
}

// TestEventsResume reads one event at a time, each over a new connection.
func TestEventsResume(t *testing.T) {
	r := newRig(t)
	p := r.exec("", innerdock.ProcessSpec{Args: []string{"sh", "-c", `for i in $(seq 1 40); do echo out $i; echo err $i >&2; sleep 0.005; done`}})
	var out, errs []byte
	for ended := false; !ended; {
		resp, err := http.Get(fmt.Sprintf("%s/processes/%d/output?stdout_offset=%d&stderr_offset=%d", r.url, p.PID, len(out), len(errs)))
		if err != nil {
			t.Fatal(err)
		}
		events(t, resp.Body, func(e event) bool {
			switch e.name {
			case "stdout":
				out = append(out, e.data.Data...)
			case "stderr":
				errs = append(errs, e.data.Data...)
			case "exit":
				ended = true
			}
			return false
		})
		resp.Body.Close()
	}
	var wantOut, wantErr strings.Builder
	for i := 1; i <= 40; i++ {
		fmt.Fprintln(&wantOut, "out", i)
		fmt.Fprintln(&wantErr, "err", i)
	}
	if string(out) != wantOut.String() || string(errs) != wantErr.String() {
		t.Errorf("out %q, err %q", out, errs)
	}
}

func TestEventsTellWhatWasDropped(t *testing.T) {
	r := newRig(t)
	p := r.sh(fmt.Sprintf("yes | head -c %d", BufferSize+1000))
	resp, err := http.Get(fmt.Sprintf("%s/processes/%d/output?stdout_offset=100", r.url, p.PID))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	total, first := 0, event{}
	events(t, resp.Body, func(e event) bool {
		if first.name == "" {
			first = e
		}
		total += len(e.data.Data)
		return true
	})
	if first.name != "dropped" || first.data.Stream != "stdout" || first.data.Offset != 100 || first.data.Dropped != 900 || total != BufferSize {
		t.Errorf("first %+v, then %d bytes", first, total)
	}
}

// TestDescendantsKeepTheOutputOpen: they neither delay the exit for ever nor
// lose what they write after it.
func TestDescendantsKeepTheOutputOpen(t *testing.T) {
	r := newRig(t)
	began := time.Now()
	p := r.sh(`(sleep 0.5; echo late) & echo early`)
	if took := time.Since(began); took > 400*time.Millisecond {
		t.Errorf("the exit took %v", took)
	}
	if got := r.out(p, "stdout"); got != "early\n" {
		t.Errorf("at the exit: %q", got)
	}
	r.waitFor(p, "early\nlate\n")
}

func TestOutputIsCompleteAtTheExit(t *testing.T) {
	r := newRig(t)
	for range 20 {
		p := r.sh(`sleep 60 & head -c 60000 /dev/zero; kill -9 $!`)
		if p.Stdout != 60000 {
			t.Fatalf("%d bytes at the exit", p.Stdout)
		}
	}
}

func TestOnlyTheLastExitedAreRemembered(t *testing.T) {
	r := newRig(t)
	first := r.sh("true")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range MaxExited / 8 {
				e, err := r.table.Exec(innerdock.ProcessSpec{Args: []string{"true"}})
				if err != nil {
					t.Error(err)
					return
				}
				<-e.Done()
			}
		})
	}
	wg.Wait()
	await(t, "the first to be forgotten", func() bool {
		_, err := r.table.Get(first.PID)
		return innerdock.CodeOf(err) == innerdock.CodeNotFound
	})
	list := r.table.List()
	if len(list) != MaxExited {
		t.Errorf("%d are listed", len(list))
	}
	for i := 1; i < len(list); i++ {
		if list[i].StartedAt.Before(list[i-1].StartedAt) {
			t.Fatal("not in the order of the start")
		}
	}
}

func TestExitedOutputIsBounded(t *testing.T) {
	r := newRig(t)
	first := r.sh(fmt.Sprintf("yes | head -c %d", BufferSize))
	for range MaxExitedOutput / BufferSize {
		r.sh(fmt.Sprintf("yes | head -c %d", BufferSize))
	}
	await(t, "the oldest output to be dropped", func() bool { return r.out(first, "stdout") == "" })
	_, body := r.do("GET", fmt.Sprintf("/processes/%d", first.PID), "")
	if p := decode[innerdock.Process](t, body); *p.ExitCode != 0 || p.Stdout != BufferSize {
		t.Errorf("the oldest: %s", body)
	}
}

func TestCloseEndsAll(t *testing.T) {
	r := newRig(t)
	polite := r.exec("", innerdock.ProcessSpec{Args: []string{"sh", "-c", `trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done`}})
	stubborn := r.exec("", innerdock.ProcessSpec{Args: []string{"sh", "-c", `trap '' TERM; echo up; while :; do sleep 0.01; done`}})
	r.waitFor(polite, "up")
	r.waitFor(stubborn, "up")
	r.table.Close(300 * time.Millisecond)
	if code, exited, _ := r.table.Status(polite.PID); code != 0 || !exited {
		t.Errorf("polite: %d, %v", code, exited)
	}
	if code, exited, _ := r.table.Status(stubborn.PID); code != 137 || !exited {
		t.Errorf("stubborn: %d, %v", code, exited)
	}
	if _, err := r.table.Exec(innerdock.ProcessSpec{Args: []string{"true"}}); innerdock.CodeOf(err) != innerdock.CodeUnavailable {
		t.Errorf("exec after the end: %v", err)
	}
}

// FuzzExec sends hostile requests; none may panic, hang or start what it must not.
func FuzzExec(f *testing.F) {
	for _, body := range []string{`{"args":["/no/such"]}`, `{"args":[""],"cwd":"../.."}`, `{"args":["/x\u0000"],"env":{"":""}}`, `[]`, `{"args":["//"],"cwd":"\u0000"}`} {
		f.Add(body, "wait=1")
	}
	reaper := &child.Reaper{}
	dir := f.TempDir()
	table := NewTable(reaper, "", Defaults{Dir: dir, Env: map[string]string{"PATH": dir}}) // nothing can be found there
	mux := http.NewServeMux()
	table.Register(mux)
	f.Fuzz(func(t *testing.T, body, query string) {
		if strings.Contains(body, "/") && !strings.Contains(body, "/no/such") {
			t.Skip("might name a real program")
		}
		req := httptest.NewRequest("POST", "/processes", strings.NewReader(body))
		req.URL.RawQuery = query
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, req)
		var e innerdock.Error
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Code == "" || w.Code != e.Code.Status() {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

func BenchmarkExec(b *testing.B) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.Context()))
	reaper := &child.Reaper{}
	var reaping sync.WaitGroup
	reaping.Go(func() { reaper.Run(ctx) })
	defer reaping.Wait()
	defer cancel()
	table := NewTable(reaper, "", Defaults{Dir: b.TempDir(), Env: map[string]string{"PATH": "/usr/bin:/bin"}})
	defer table.Close(time.Second)
	for b.Loop() {
		e, err := table.Exec(innerdock.ProcessSpec{Args: []string{"true"}})
		if err != nil {
			b.Fatal(err)
		}
		<-e.Done()
	}
}
