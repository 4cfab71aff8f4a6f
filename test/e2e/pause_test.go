package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/store"
)

// pause pauses a sandbox, which must be so afterwards.
func (s *server) pause(t *testing.T, id string) {
	t.Helper()
	for range 2 { // twice is fine
		if paused, err := s.client.Pause(t.Context(), id); err != nil || paused.State != innerdock.StatePaused {
			t.Fatalf("paused as %+v, %v", paused, err)
		}
	}
}

func (s *server) resume(t *testing.T, id string) {
	t.Helper()
	for range 2 {
		if resumed, err := s.client.Resume(t.Context(), id); err != nil || resumed.State != innerdock.StateRunning {
			t.Fatalf("resumed as %+v, %v", resumed, err)
		}
	}
}

// standsStill fails if a sandbox uses CPU for more than its kernel's own needs.
func standsStill(t *testing.T, id string) {
	t.Helper()
	before := hostCPUSeconds(t, id)
	time.Sleep(2 * time.Second) // in which nothing may happen
	if used := hostCPUSeconds(t, id) - before; used > 0.02 {
		t.Errorf("in 2 s the paused sandbox used %f s of CPU", used)
	}
}

// A process that counts stands still while its sandbox is paused; what needs
// the sandbox is refused, and the stream of the process goes on afterwards.
func TestPauseAndResume(t *testing.T) {
	sandbox := shared.create(t, python, innerdock.SandboxSpec{})
	var output lockedBuffer
	ended := make(chan error, 1)
	go func() {
		process, err := shared.client.Exec(t.Context(), sandbox.ID, innerdock.ProcessSpec{Args: []string{"sh", "-c",
			"i=0; until test -e /tmp/stop; do i=$((i+1)); echo $i; sleep 0.01; done"}}, innerdock.Streams{Stdout: &output})
		if err == nil && *process.ExitCode != 0 {
			err = errors.New("exit code " + strconv.Itoa(*process.ExitCode))
		}
		ended <- err
	}()
	counted := func() int { return strings.Count(output.String(), "\n") }
	counts := func() {
		t.Helper()
		before := counted()
		eventually(t, func() error {
			if counted() < before+5 {
				return errors.New("nothing is counted")
			}
			return nil
		})
	}
	counts()

	shared.pause(t, sandbox.ID)
	standsStill(t, sandbox.ID)
	before := counted()
	_, execErr := shared.client.Exec(t.Context(), sandbox.ID, innerdock.ProcessSpec{Args: []string{"true"}}, innerdock.Streams{})
	_, snapshotErr := shared.client.Snapshot(t.Context(), sandbox.ID, innerdock.SnapshotSpec{})
	_, forkErr := shared.client.Fork(t.Context(), sandbox.ID, 1)
	_, processErr := shared.client.Process(t.Context(), sandbox.ID, 1)
	for _, err := range []error{execErr, snapshotErr, forkErr, processErr} {
		wantCode(t, err, innerdock.CodeConflict, "paused", "innerdock resume "+sandbox.ID)
	}
	if got := counted(); got != before {
		t.Errorf("%d lines came out of a paused sandbox", got-before)
	}

	shared.resume(t, sandbox.ID)
	counts()
	shared.sh(t, sandbox.ID, "touch /tmp/stop")
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Fields(output.String()) {
		if line != strconv.Itoa(i+1) {
			t.Fatalf("line %d of the output is %q", i+1, line)
		}
	}
}

// The processes of a paused sandbox that is terminated can still end by themselves.
func TestTerminatingAPausedSandbox(t *testing.T) {
	t.Parallel()
	sandbox := shared.create(t, python, innerdock.SandboxSpec{})
	var output bytes.Buffer
	started := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		_, err := shared.client.Exec(t.Context(), sandbox.ID, innerdock.ProcessSpec{Args: []string{"sh", "-c",
			"trap 'echo bye; exit' TERM; echo ready; while true; do sleep 0.05; done"}},
			innerdock.Streams{Stdout: writerFunc(func(p []byte) (int, error) {
				if output.Len() == 0 {
					close(started)
				}
				return output.Write(p)
			})})
		ended <- err
	}()
	<-started
	shared.pause(t, sandbox.ID)
	terminated, err := shared.client.Terminate(t.Context(), sandbox.ID)
	if err != nil || terminated.State != innerdock.StateTerminated {
		t.Fatalf("terminated as %+v, %v", terminated, err)
	}
	if err := <-ended; output.String() != "ready\nbye\n" {
		t.Errorf("the process said %q, %v", output.String(), err)
	}
	shared.noTrace(t, sandbox.ID)
	_, err = shared.client.Pause(t.Context(), sandbox.ID)
	wantCode(t, err, innerdock.CodeSandboxTerminated, sandbox.ID)
}

// A stack of containers goes on after a pause, and Docker is refused meanwhile.
func TestPausedContainersGoOn(t *testing.T) {
	t.Parallel()
	sandbox := shared.createWithDocker(t, innerdock.SandboxSpec{CPU: 2, Memory: "2Gi"})
	shared.sh(t, sandbox.ID, compose)
	before := stackWorks(t, sandbox.ID)
	if got := shared.cli(t, nil, "pause", sandbox.ID); got.code != 0 || got.stdout != sandbox.ID+"\n" {
		t.Fatalf("%+v", got)
	}
	standsStill(t, sandbox.ID)
	if got := shared.cli(t, nil, "docker", sandbox.ID, "ps"); got.code == 0 || !strings.Contains(got.stderr, "paused") {
		t.Errorf("docker ps in a paused sandbox: %+v", got)
	}
	_, err := shared.client.DockerLogs(t.Context(), sandbox.ID)
	wantCode(t, err, innerdock.CodeConflict, "innerdock resume")
	if got := shared.cli(t, nil, "resume", sandbox.ID); got.code != 0 || got.stdout != sandbox.ID+"\n" {
		t.Fatalf("%+v", got)
	}
	if after := stackWorks(t, sandbox.ID); after != before {
		t.Errorf("after the pause the containers are\n%s; before they were\n%s", after, before)
	}
}

// A pause of more than 30 seconds, the deadline of several parts, harms neither a
// program that computes nor a stream in full flow.
func TestALongPause(t *testing.T) {
	t.Parallel()
	sandbox := shared.create(t, python, innerdock.SandboxSpec{CPU: 2})
	stream, count := sha256.New(), &atomic.Int64{}
	ended := make(chan error, 1)
	go func() {
		process, err := shared.client.Exec(t.Context(), sandbox.ID, innerdock.ProcessSpec{Args: []string{"sh", "-c",
			"until test -e /tmp/stop; do head -c 1000000 /dev/zero; done"}},
			innerdock.Streams{Stdout: writerFunc(func(p []byte) (int, error) {
				count.Add(int64(len(p)))
				return stream.Write(p)
			})})
		if err == nil && *process.ExitCode != 0 {
			err = errors.New("exit code " + strconv.Itoa(*process.ExitCode))
		}
		ended <- err
	}()
	shared.sh(t, sandbox.ID, "setsid sh -c 'while true; do :; done' >/dev/null 2>&1 </dev/null & echo $! >/tmp/pid")
	flows := func() {
		t.Helper()
		before := count.Load()
		eventually(t, func() error {
			if count.Load() < before+5_000_000 {
				return errors.New("nothing flows")
			}
			return nil
		})
	}
	flows()
	shared.pause(t, sandbox.ID)
	time.Sleep(40 * time.Second)
	standsStill(t, sandbox.ID)
	shared.resume(t, sandbox.ID)
	flows()
	shared.sh(t, sandbox.ID, "touch /tmp/stop; kill -0 $(cat /tmp/pid)")
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	whole := sha256.New()
	if _, err := io.CopyN(whole, zeros{}, count.Load()); err != nil {
		t.Fatal(err)
	}
	if count.Load()%1_000_000 != 0 || !bytes.Equal(whole.Sum(nil), stream.Sum(nil)) {
		t.Errorf("of the stream came %d bytes, or others than were sent", count.Load())
	}
}

// zeros is /dev/zero.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A sandbox that nobody asks for anything is paused, and resumed by whoever does,
// but not while a request is open, and not if somebody paused it.
func TestAutoPause(t *testing.T) {
	t.Parallel()
	made := shared.cli(t, nil, "create", "--auto-pause", "1s", shared.image(t, python).ID)
	sandbox, err := shared.client.Sandbox(t.Context(), strings.TrimSpace(made.stdout))
	if err != nil {
		t.Fatalf("%+v, %v", made, err)
	}
	t.Cleanup(func() {
		if _, err := shared.client.Terminate(context.WithoutCancel(t.Context()), sandbox.ID); err != nil {
			t.Error(err)
		}
	})
	becomes := func(state innerdock.SandboxState, idle bool) {
		t.Helper()
		eventually(t, func() error {
			now, err := shared.client.Sandbox(t.Context(), sandbox.ID)
			if err == nil && (now.State != state || now.Idle != idle) {
				err = fmt.Errorf("it is %s, idle %t", now.State, now.Idle)
			}
			return err
		})
	}
	shared.sh(t, sandbox.ID, "sleep 3; touch /tmp/slept") // a request that is open for longer
	becomes(innerdock.StatePaused, true)
	standsStill(t, sandbox.ID)
	var over sync.WaitGroup
	for range 5 {
		over.Go(func() { shared.sh(t, sandbox.ID, "test -e /tmp/slept") })
	}
	over.Wait()
	becomes(innerdock.StatePaused, true)
	snapshot, err := shared.client.Snapshot(t.Context(), sandbox.ID, innerdock.SnapshotSpec{})
	if err != nil {
		t.Fatal(err)
	}
	if err := shared.client.DeleteSnapshot(t.Context(), snapshot.ID); err != nil {
		t.Fatal(err)
	}
	becomes(innerdock.StatePaused, true)

	shared.pause(t, sandbox.ID)
	becomes(innerdock.StatePaused, false)
	_, err = shared.client.Exec(t.Context(), sandbox.ID, innerdock.ProcessSpec{Args: []string{"true"}}, innerdock.Streams{})
	wantCode(t, err, innerdock.CodeConflict, "innerdock resume")
	shared.resume(t, sandbox.ID)
	becomes(innerdock.StatePaused, true)
	if _, err := shared.client.Terminate(t.Context(), sandbox.ID); err != nil {
		t.Fatal(err)
	}
	shared.noTrace(t, sandbox.ID)
}

// A server that is killed leaves a paused sandbox to the next one as the store
// says it is to be, wherever it was killed.
func TestPausedSandboxesOutliveTheServer(t *testing.T) {
	t.Parallel()
	s := ownServer(t, 221)
	sandbox := s.create(t, python, innerdock.SandboxSpec{AutoPause: 3600})
	byHand := func(verb string) func() {
		return func() {
			runsc, err := exec.Command("../../tools/runsc/build.sh", "--path").Output()
			if err != nil {
				t.Fatal(err)
			}
			output, err := exec.Command(strings.TrimSpace(string(runsc)), "--root="+filepath.Join(s.data(), "runsc"), verb, sandbox.ID).CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v\n%s", verb, err, output)
			}
		}
	}
	s.sh(t, sandbox.ID, "setsid sh -c 'while true; do :; done' >/dev/null 2>&1 </dev/null & echo $! >/tmp/pid")
	s.pause(t, sandbox.ID)
	for _, meanwhile := range []func(){func() {}, byHand("resume")} { // or it was killed before it paused
		s.killed(t, meanwhile)
		if now, err := s.client.Sandbox(t.Context(), sandbox.ID); err != nil || now.State != innerdock.StatePaused {
			t.Fatalf("the next server has it as %+v, %v", now, err)
		}
		standsStill(t, sandbox.ID)
	}
	s.resume(t, sandbox.ID)
	s.sh(t, sandbox.ID, "kill -0 $(cat /tmp/pid)")
	s.killed(t, byHand("pause")) // before it resumed
	s.sh(t, sandbox.ID, "kill -0 $(cat /tmp/pid)")
	s.pause(t, sandbox.ID) // and so it ends
}

// A sandbox whose memory is on the disk has no process, and comes back with all of
// its own, containers included, under its name and address.
func TestPersistedPause(t *testing.T) {
	sandbox := shared.createWithDocker(t, innerdock.SandboxSpec{Name: "kept", CPU: 2, Memory: "2Gi"})
	shared.sh(t, sandbox.ID, compose)
	shared.sh(t, sandbox.ID, "echo kept >/root/file; echo kept >/tmp/file; setsid sh -c 'exec 3</root/file; while ! test -e /tmp/go; do sleep 0.1; done; cat <&3 >/tmp/read' >/dev/null 2>&1 </dev/null &")
	before := stackWorks(t, sandbox.ID)
	for range 2 { // and again
		if got := shared.cli(t, nil, "pause", "--persist", sandbox.ID); got.code != 0 || got.stdout != sandbox.ID+"\n" {
			t.Fatalf("%+v", got)
		}
		now, err := shared.client.Sandbox(t.Context(), "kept")
		if err != nil || now.State != innerdock.StatePaused || !now.Persisted || now.Address != sandbox.Address {
			t.Fatalf("it is %+v, %v", now, err)
		}
		if pids := hostProcesses(t, sandbox.ID); pids != "" {
			t.Errorf("it has processes: %s", pids)
		}
		shared.pauseIs(t, sandbox.ID, now)
		_, err = shared.client.Exec(t.Context(), sandbox.ID, innerdock.ProcessSpec{Args: []string{"true"}}, innerdock.Streams{})
		wantCode(t, err, innerdock.CodeConflict, "paused", "innerdock resume "+sandbox.ID)
		_, err = shared.client.Snapshot(t.Context(), sandbox.ID, innerdock.SnapshotSpec{})
		wantCode(t, err, innerdock.CodeConflict, "paused")
		shared.resume(t, sandbox.ID)
		if _, err := shared.client.WaitDocker(t.Context(), sandbox.ID); err != nil {
			t.Fatal(err)
		}
		if after := stackWorks(t, sandbox.ID); after != before {
			t.Errorf("after the pause the containers are\n%s; before they were\n%s", after, before)
		}
	}
	now, err := shared.client.Sandbox(t.Context(), sandbox.ID)
	if err != nil || now.Name != "kept" || now.Address != sandbox.Address || now.Persisted || now.Start != sandbox.Start {
		t.Errorf("it came back as %+v, %v; it was %+v", now, err, sandbox)
	}
	if got := shared.sh(t, sandbox.ID, "touch /tmp/go; until test -s /tmp/read; do sleep 0.1; done; cat /tmp/read /tmp/file; hostname"); got != "kept\nkept\nkept\n" {
		t.Errorf("in it is %q", got)
	}
	if left, err := os.ReadDir(filepath.Join(shared.data(), "memories")); err != nil || len(left) > 0 {
		t.Errorf("memories are left: %v, %v", left, err)
	}
}

// pauseIs fails if a pause of a paused sandbox changes it.
func (s *server) pauseIs(t *testing.T, id string, want innerdock.Sandbox) {
	t.Helper()
	if again, err := s.client.Pause(t.Context(), id); err != nil || again.State != want.State || again.Persisted != want.Persisted {
		t.Errorf("paused again it is %+v, %v", again, err)
	}
}

// hostProcesses lists what runs in a sandbox's cgroup.
func hostProcesses(t *testing.T, id string) string {
	t.Helper()
	files, err := filepath.Glob("/sys/fs/cgroup/*/innerdock/" + id + "/cgroup.procs")
	if err != nil {
		t.Fatal(err)
	}
	pids := ""
	for _, file := range append(files, "/sys/fs/cgroup/innerdock/"+id+"/cgroup.procs") {
		text, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		pids += string(text)
	}
	return pids
}

// A server that is killed has a persisted sandbox still be so, wherever it was
// killed, and one that was not yet go on.
func TestPersistedSandboxesOutliveTheServer(t *testing.T) {
	t.Parallel()
	s := ownServer(t, 221)
	sandbox := s.create(t, python, innerdock.SandboxSpec{})
	s.sh(t, sandbox.ID, "setsid sleep 10000 >/dev/null 2>&1 </dev/null & echo $! >/tmp/pid")
	persist := func() {
		t.Helper()
		if paused, err := s.client.PauseToDisk(t.Context(), sandbox.ID); err != nil || !paused.Persisted {
			t.Fatalf("paused as %+v, %v", paused, err)
		}
	}
	memory := filepath.Join(s.data(), "memories", sandbox.ID)
	stored := func(change func(*store.Record)) {
		s.rows(t, func(db *store.Store) {
			if _, err := db.Update(t.Context(), sandbox.ID, func(r *store.Record) error { change(r); return nil }); err != nil {
				t.Fatal(err)
			}
		})
	}

	persist()
	s.killed(t, func() {})
	if now, err := s.client.Sandbox(t.Context(), sandbox.ID); err != nil || now.State != innerdock.StatePaused || !now.Persisted {
		t.Fatalf("the next server has it as %+v, %v", now, err)
	}
	s.resume(t, sandbox.ID)
	s.sh(t, sandbox.ID, "kill -0 $(cat /tmp/pid)")

	persist()
	kept := t.TempDir()
	if err := os.CopyFS(filepath.Join(kept, "memory"), os.DirFS(memory)); err != nil {
		t.Fatal(err)
	}
	s.resume(t, sandbox.ID)
	s.killed(t, func() { // before it had stored that it runs again
		if err := os.CopyFS(memory, os.DirFS(filepath.Join(kept, "memory"))); err != nil {
			t.Fatal(err)
		}
		build := ""
		stored(func(r *store.Record) { build, r.State, r.Persisted = r.Build, innerdock.StatePaused, true })
		if build == "" {
			t.Error("the store does not say what the memory fits")
		}
	})
	if pids := hostProcesses(t, sandbox.ID); pids != "" {
		t.Errorf("it has processes: %s", pids)
	}
	s.resume(t, sandbox.ID)
	s.sh(t, sandbox.ID, "kill -0 $(cat /tmp/pid)")
	s.killed(t, func() { // before it had removed the memory, or when it wrote one
		for _, dir := range []string{memory, filepath.Join(filepath.Dir(memory), ".making-"+sandbox.ID)} {
			if err := os.CopyFS(dir, os.DirFS(filepath.Join(kept, "memory"))); err != nil {
				t.Fatal(err)
			}
		}
	})
	if left, err := os.ReadDir(filepath.Dir(memory)); err != nil || len(left) > 0 {
		t.Errorf("memories are left: %v, %v", left, err)
	}
	s.sh(t, sandbox.ID, "kill -0 $(cat /tmp/pid)")

	persist() // a memory that cannot be restored is no reason to lose the sandbox
	pages := filepath.Join(memory, "checkpoint.img")
	whole, err := os.ReadFile(pages)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(pages, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Resume(t.Context(), sandbox.ID); err == nil {
		t.Error("it was resumed from half of its memory")
	}
	if err := os.WriteFile(pages, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	s.resume(t, sandbox.ID)
	s.sh(t, sandbox.ID, "kill -0 $(cat /tmp/pid)")

	persist()
	s.killed(t, func() { stored(func(r *store.Record) { r.Build = "another" }) })
	_, err = s.client.Resume(t.Context(), sandbox.ID)
	wantCode(t, err, innerdock.CodeUnsupported, "version", "terminate")
	if ended, err := s.client.Terminate(t.Context(), sandbox.ID); err != nil || ended.State != innerdock.StateTerminated {
		t.Errorf("terminated as %+v, %v", ended, err)
	}
	if _, err := os.Stat(memory); err == nil {
		t.Error("its memory is left")
	}
	s.noTrace(t, sandbox.ID)
}

// The memory of a sandbox on the disk counts in its tenant's quota. What does not fit
// is refused, and the sandbox goes on.
func TestPersistedMemoryHasAQuota(t *testing.T) {
	t.Parallel()
	s := ownServer(t, 247)
	first := s.create(t, python, innerdock.SandboxSpec{})
	if _, err := s.client.PauseToDisk(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	var taken int64
	s.killed(t, func() {
		s.rows(t, func(db *store.Store) {
			rec, err := db.Sandbox(t.Context(), "default", first.ID)
			if err != nil {
				t.Fatal(err)
			}
			taken = rec.OnDisk
		})
		s.flags = []string{"--snapshot-size", fmt.Sprint(taken + taken/2)}
	})
	if onDisk := treeSize(t, filepath.Join(s.data(), "memories", first.ID)); taken != onDisk {
		t.Errorf("%d bytes count, and %d are on the disk", taken, onDisk)
	}
	second := s.create(t, python, innerdock.SandboxSpec{})
	s.sh(t, second.ID, "setsid sleep 10000 >/dev/null 2>&1 </dev/null & echo $! >/tmp/pid")
	_, err := s.client.PauseToDisk(t.Context(), second.ID)
	wantCode(t, err, innerdock.CodeExhausted, "paused to the disk", "innerdock snapshot rm")
	s.sh(t, second.ID, "kill -0 $(cat /tmp/pid)")
	if left, err := os.ReadDir(filepath.Join(s.data(), "memories")); err != nil || len(left) != 1 {
		t.Errorf("memories: %v, %v", left, err)
	}
	_, err = s.client.Snapshot(t.Context(), second.ID, innerdock.SnapshotSpec{})
	wantCode(t, err, innerdock.CodeExhausted, "innerdock snapshot rm")
	s.resume(t, first.ID)
	if _, err := s.client.PauseToDisk(t.Context(), second.ID); err != nil {
		t.Error(err)
	}
	if _, err := s.client.Terminate(t.Context(), second.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.PauseToDisk(t.Context(), first.ID); err != nil {
		t.Error(err)
	}
}

// treeSize adds up the files in a directory, in bytes.
func treeSize(t *testing.T, dir string) (bytes int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		bytes += info.Size()
	}
	return bytes
}

// Whatever is asked of a sandbox at a time, each answer is one of those that it may
// be, the sandbox goes on after a resume, and ends when it is to.
func TestPausesAtATime(t *testing.T) {
	sandbox := shared.create(t, python, innerdock.SandboxSpec{AutoPause: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	asks := []func() error{
		func() error { _, err := shared.client.Pause(ctx, sandbox.ID); return err },
		func() error { _, err := shared.client.PauseToDisk(ctx, sandbox.ID); return err },
		func() error { _, err := shared.client.Resume(ctx, sandbox.ID); return err },
		func() error { _, err := shared.client.Processes(ctx, sandbox.ID); return err },
	}
	all := func(ended bool) *sync.WaitGroup {
		var over sync.WaitGroup
		for i := range 3 * len(asks) {
			over.Go(func() {
				for round := range 5 {
					err := asks[(i+round)%len(asks)]()
					switch code := innerdock.CodeOf(err); {
					case err == nil, code == innerdock.CodeConflict, code == innerdock.CodeUnavailable:
					case code == innerdock.CodeSandboxTerminated && ended:
					default:
						t.Errorf("ask %d: %v", (i+round)%len(asks), err)
					}
				}
			})
		}
		return &over
	}
	all(false).Wait()
	shared.resume(t, sandbox.ID)
	shared.sh(t, sandbox.ID, "true")

	over := all(true)
	if ended, err := shared.client.Terminate(ctx, sandbox.ID); err != nil || ended.State != innerdock.StateTerminated {
		t.Errorf("terminated as %+v, %v", ended, err)
	}
	over.Wait()
	shared.noTrace(t, sandbox.ID)
}
