package process

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/child"
)

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
	p := r.exec("", innerdock.ProcessSpec{Args: []string{"sh", "-c", "until [ -e go ]; do sleep 0.01; done"}})
	_, body := r.do("GET", fmt.Sprintf("/processes/%d?wait=0.05", p.PID), "")
	if p := decode[innerdock.Process](t, body); p.State != innerdock.ProcessRunning || p.ExitCode != nil {
		t.Errorf("before its end: %s", body)
	}
	r.touch("go")
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
	r.do("GET", fmt.Sprintf("/processes/%d?wait=60", p.PID), "")
	await(t, "the end of the child "+child, func() bool {
		stat, err := os.ReadFile("/proc/" + child + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
	resp, body = r.do("POST", fmt.Sprintf("/processes/%d/signal", p.PID), `{"signal":"term"}`)
	if e := decode[innerdock.Error](t, body); e.Code != innerdock.CodeConflict {
		t.Errorf("signal after the end: %s %s", resp.Status, body)
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
	_, body := r.do("GET", fmt.Sprintf("/processes/%d?wait=60", p.PID), "")
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

func TestCloseEndsAll(t *testing.T) {
	r := newRig(t)
	polite := r.exec("", innerdock.ProcessSpec{Args: []string{"sh", "-c", `trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done`}})
	r.waitFor(polite, "up")
	r.table.Close(time.Minute) // which is not waited for
	if code, exited, _ := r.table.Status(polite.PID); code != 0 || !exited {
		t.Errorf("polite: %d, %v", code, exited)
	}
	if _, err := r.table.Exec(innerdock.ProcessSpec{Args: []string{"true"}}); innerdock.CodeOf(err) != innerdock.CodeUnavailable {
		t.Errorf("exec after the end: %v", err)
	}
}

func TestCloseKillsWhatStays(t *testing.T) {
	r := newRig(t)
	stubborn := r.exec("", innerdock.ProcessSpec{Args: []string{"sh", "-c", `trap '' TERM; echo up; while :; do sleep 0.01; done`}})
	r.waitFor(stubborn, "up")
	r.table.Close(100 * time.Millisecond)
	if code, exited, _ := r.table.Status(stubborn.PID); code != 137 || !exited {
		t.Errorf("stubborn: %d, %v", code, exited)
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
