package server_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/test/freeport"
)

func (r *rig) exec(id string, spec innerdock.ProcessSpec) (process innerdock.Process, stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	process, err = r.client.Exec(r.t.Context(), id, spec, innerdock.Streams{Stdout: &out, Stderr: &errs})
	return process, out.String(), errs.String(), err
}

func shell(script string) innerdock.ProcessSpec {
	return innerdock.ProcessSpec{Args: []string{"sh", "-c", script}}
}

func TestExec(t *testing.T) {
	r := newRig(t)
	id := r.create(innerdock.SandboxSpec{Env: map[string]string{"A": "a"}}).ID
	spec := shell("echo $A$B; echo oops >&2; exit 3")
	spec.Env = map[string]string{"B": "b"}
	process, stdout, stderr, err := r.exec(id, spec)
	if err != nil || *process.ExitCode != 3 || stdout != "ab\n" || stderr != "oops\n" {
		t.Fatalf("%+v %q %q %v", process, stdout, stderr, err)
	}
	data, offset, err := r.client.ReadOutput(t.Context(), id, process.PID, "stdout", 1)
	if err != nil || string(data) != "b\n" || offset != 1 {
		t.Errorf("read again from 1: %q at %d, %v", data, offset, err)
	}
	list, err := r.client.Processes(t.Context(), id)
	if err != nil || len(list) != 1 {
		t.Errorf("processes: %v, %v", list, err)
	}
	_, _, _, err = r.exec(id, innerdock.ProcessSpec{Args: []string{"no-such-command"}})
	wantCode(t, err, innerdock.CodeCommandNotFound)
}

func TestStdinSignalAndWait(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	id := r.create(innerdock.SandboxSpec{}).ID
	cat, err := r.client.StartProcess(ctx, id, innerdock.ProcessSpec{Args: []string{"cat"}, Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	sent := make([]byte, 3<<20)
	_, _ = rand.Read(sent)
	if err := r.client.CopyStdin(ctx, id, cat.PID, bytes.NewReader(sent)); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	ended, err := r.client.Follow(ctx, id, cat.PID, innerdock.Streams{Stdout: &got})
	if err != nil || *ended.ExitCode != 0 || !bytes.Equal(got.Bytes(), sent) {
		t.Fatalf("%+v, %d bytes of %d, %v", ended, got.Len(), len(sent), err)
	}
	sleep, err := r.client.StartProcess(ctx, id, innerdock.ProcessSpec{Args: []string{"sleep", "60"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.client.Signal(ctx, id, sleep.PID, "SIGTERM"); err != nil {
		t.Fatal(err)
	}
	ended, err = r.client.WaitProcess(ctx, id, sleep.PID)
	if err != nil || *ended.ExitCode != 143 || ended.Signal != "SIGTERM" {
		t.Errorf("after SIGTERM: %+v, %v", ended, err)
	}
	wantCode(t, r.client.Signal(ctx, id, sleep.PID, "SIGTERM"), innerdock.CodeConflict)
}

func TestFiles(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	id := r.create(innerdock.SandboxSpec{}).ID
	content := make([]byte, 5<<20)
	_, _ = rand.Read(content)
	info, err := r.client.WriteFile(ctx, id, "a/b c?&%.bin", 0o600, bytes.NewReader(content))
	if err != nil || info.Size != int64(len(content)) || info.Mode != "0600" {
		t.Fatalf("write: %+v, %v", info, err)
	}
	file, err := r.client.ReadFile(ctx, id, "a/b c?&%.bin")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(file)
	_ = file.Close()
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("read %d bytes of %d, %v", len(got), len(content), err)
	}
	if _, err := r.client.MakeDirectory(ctx, id, "d/e", 0o755); err != nil {
		t.Fatal(err)
	}
	list, err := r.client.Files(ctx, id, ".")
	if err != nil || len(list) != 2 {
		t.Fatalf("list: %v, %v", list, err)
	}
	if err := r.client.RemoveFile(ctx, id, "a", true); err != nil {
		t.Fatal(err)
	}
	_, err = r.client.File(ctx, id, "a")
	wantCode(t, err, innerdock.CodeNotFound)
}

// Cutting every connection to the agent in the middle of a stream loses nothing.
func TestOutputIsResumed(t *testing.T) {
	r := newRig(t)
	id := r.create(innerdock.SandboxSpec{}).ID
	var out bytes.Buffer
	lines := 0
	cutter := writerFunc(func(p []byte) (int, error) {
		if lines++; lines == 2 || lines == 4 {
			r.backend.Cut(id)
		}
		return out.Write(p)
	})
	spec := shell("for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.05; done; exit 5")
	process, err := r.client.Exec(t.Context(), id, spec, innerdock.Streams{Stdout: cutter})
	if err != nil || *process.ExitCode != 5 {
		t.Fatalf("%+v, %v", process, err)
	}
	want := "line 1\nline 2\nline 3\nline 4\nline 5\nline 6\nline 7\nline 8\n"
	if out.String() != want {
		t.Errorf("got %q", out.String())
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestTerminateDuringExec(t *testing.T) {
	r := newRig(t)
	id := r.create(innerdock.SandboxSpec{}).ID
	process, err := r.client.Exec(t.Context(), id, shell("echo; sleep 60"), innerdock.Streams{
		Started: func(innerdock.Process) {
			if _, err := r.client.Terminate(t.Context(), id); err != nil {
				t.Error(err)
			}
		},
	})
	if err == nil && process.ExitCode != nil && *process.ExitCode == 128+int(syscall.SIGTERM) {
		return // its end was told before the sandbox's
	}
	wantCode(t, err, innerdock.CodeSandboxTerminated)
}

// A hostile agent answers with whatever it likes.
func TestHostileAgent(t *testing.T) {
	const json = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	for _, test := range []struct {
		name, path, answer string
		code               innerdock.Code
	}{
		{"nothing", "/processes", "", innerdock.CodeUnavailable},
		{"no HTTP", "/processes", "SSH-2.0-OpenSSH\r\n", innerdock.CodeUnavailable},
		{"no JSON", "/processes", json + "Content-Length: 5\r\n\r\n<html", innerdock.CodeUnavailable},
		{"cut JSON", "/processes", json + "Content-Length: 50\r\n\r\n{}", innerdock.CodeUnavailable},
		{"endless JSON", "/processes", json + "\r\n" + strings.Repeat(" ", 17<<20), innerdock.CodeTooLarge},
		{"endless headers", "/processes", json + strings.Repeat("X: y\r\n", 10<<10), innerdock.CodeUnavailable},
		{"redirect", "/processes", "HTTP/1.1 302 Found\r\nLocation: http://evil/\r\nContent-Length: 0\r\n\r\n", innerdock.CodeUnavailable},
		{"switch", "/processes", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", innerdock.CodeUnavailable},
		{"forged code", "/processes", "HTTP/1.1 401 X\r\nContent-Length: 39\r\n\r\n" + `{"code":"unauthorized","message":"key"}`, innerdock.CodeUnavailable},
		{"own error", "/processes", "HTTP/1.1 599 X\r\nContent-Length: 34\r\n\r\n" + `{"code":"conflict","message":"no"}`, innerdock.CodeConflict},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newHostileRig(t, test.answer)
			key, _ := r.key("default")
			response, body := r.request("GET", "/v1/sandboxes/x"+test.path, key, nil)
			wantError(t, response, body, test.code)
			if response.Header.Get("Location") != "" {
				t.Error("a header of the agent came through")
			}
		})
	}
}

func TestHostileHeaders(t *testing.T) {
	r := newHostileRig(t, "HTTP/1.1 103 Early\r\nLink: </evil>\r\n\r\n"+
		"HTTP/1.1 206 Odd\r\nContent-Type: text/html\r\nSet-Cookie: a=b\r\nAccess-Control-Allow-Origin: *\r\n"+
		"Innerdock-Offset: 1\r\nContent-Security-Policy: none\r\nTransfer-Encoding: chunked\r\nTrailer: Evil\r\n\r\n"+
		"8\r\n<script>\r\n0\r\nEvil: yes\r\n\r\n")
	key, _ := r.key("default")
	response, body := r.request("GET", "/v1/sandboxes/x/processes/1/stdout", key, nil)
	if response.StatusCode != 200 || body != "<script>" {
		t.Fatalf("%s %q", response.Status, body)
	}
	if got := response.Header.Get("Content-Type"); got != "application/octet-stream" {
		t.Errorf("Content-Type %q", got)
	}
	if response.Header.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(response.Header.Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("headers %v", response.Header)
	}
	if response.Header.Get(innerdock.OutputHeader) != "1" {
		t.Error("the offset is missing")
	}
	for _, name := range []string{"Set-Cookie", "Access-Control-Allow-Origin", "Link", "Evil"} {
		if response.Header.Get(name) != "" || response.Trailer.Get(name) != "" {
			t.Errorf("%s came through", name)
		}
	}
}

// A body that breaks off breaks the reply off: it is not taken for the whole.
func TestCutBody(t *testing.T) {
	r := newHostileRig(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
	key, _ := r.key("default")
	request, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+r.tcp+"/v1/sandboxes/x/files/content?path=f", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+key)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read %q, %v", body, err)
	}
}

// hostileBackend has one sandbox, x, whose agent answers anything with answer.
type hostileBackend struct {
	answer string
}

func newHostileRig(t *testing.T, answer string) *rig {
	r := newRig(t)
	_ = r.stop()
	r.tcp = freeport.Address(t)
	r.hostile = &hostileBackend{answer}
	r.serve(listenersOf(r))
	return r
}

func (h *hostileBackend) DialAgent(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	go func() {
		defer there.Close()
		_ = there.SetDeadline(time.Now().Add(time.Minute))
		buffer := make([]byte, 4096)
		if _, err := there.Read(buffer); err == nil {
			_, _ = io.WriteString(there, h.answer)
		}
	}()
	return here, nil
}
