package process

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/innerdock/innerdock"
)

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
	req, _ := http.NewRequest("POST", r.url+"/processes", strings.NewReader(`{"args":["sh","-c","echo a; until [ -e 1 ]; do sleep 0.01; done; echo b >&2; until [ -e 2 ]; do sleep 0.01; done; echo c; exit 3"]}`))
	req.Header.Set("Accept", "text/event-stream")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got []string
	events(t, resp.Body, func(e event) bool {
		r.touch(strconv.Itoa(len(got))) // it goes on when what it wrote has arrived
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
	p := r.sh(`(until [ -e go ]; do sleep 0.01; done; echo late) & echo early`)
	if got := r.out(p, "stdout"); got != "early\n" {
		t.Errorf("at the exit: %q", got)
	}
	r.touch("go")
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
