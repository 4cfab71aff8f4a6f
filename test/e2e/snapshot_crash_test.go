package e2e

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/wire"
	"github.com/innerdock/innerdock/pkg/store"
	"github.com/innerdock/innerdock/pkg/worker/home"
)

// killed kills the server at once, lets meanwhile happen, and starts the next.
func (s *server) killed(t *testing.T, meanwhile func()) {
	t.Helper()
	if err := s.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	meanwhile()
	s.log = &lockedBuffer{}
	if err := s.start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// rows returns the store's snapshots, ready or not.
func (s *server) rows(t *testing.T, change func(*store.Store)) []store.Snapshot {
	t.Helper()
	db, err := store.Open(t.Context(), filepath.Join(s.data(), "innerdock.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	change(db)
	rows, err := db.AllSnapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// wholeSnapshots fails the test when a snapshot is half there: its row, its
// directory and what a user sees of it belong together. It returns them.
func (s *server) wholeSnapshots(t *testing.T) []innerdock.Snapshot {
	t.Helper()
	var rows, dirs, listed []string
	for _, row := range s.rows(t, func(*store.Store) {}) {
		rows = append(rows, row.ID)
	}
	entries, err := os.ReadDir(filepath.Join(s.data(), "snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		dirs = append(dirs, entry.Name())
	}
	snapshots, err := s.client.Snapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, snapshot := range snapshots {
		listed = append(listed, snapshot.ID)
	}
	for _, names := range [][]string{rows, dirs, listed} {
		slices.Sort(names)
	}
	if !slices.Equal(rows, dirs) || !slices.Equal(dirs, listed) {
		t.Errorf("rows %q, directories %q, and users see %q", rows, dirs, listed)
	}
	return snapshots
}

// moment is when to kill a server that writes a snapshot: what is awaited below its
// directory of snapshots, and how long after that.
type moment struct {
	files string
	after time.Duration
}

var moments = []moment{
	{"", 0},
	{"", 5 * time.Millisecond},
	{"", 20 * time.Millisecond},
	{".making-*", 0},
	{".making-*/checkpoint.img", 0},
	{".making-*", 60 * time.Millisecond},
	{".making-*", 200 * time.Millisecond},
	{"[^.]*", 0},
	{"[^.]*", 10 * time.Millisecond},
}

// await returns when files are there, or when what makes them is over.
func (s *server) await(files string, over <-chan struct{}) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if found, _ := filepath.Glob(filepath.Join(s.data(), "snapshots", files)); len(found) > 0 {
			return
		}
		select {
		case <-tick.C:
		case <-over:
			return
		}
	}
}

// The server is killed while it writes a snapshot. The next one has it whole or not
// at all; the sandbox goes on, and so do its Docker and the container in it.
func TestAServerKilledOverASnapshot(t *testing.T) {
	t.Parallel()
	s := ownServer(t, 241, seededOnly...)
	if err := s.seed(t.Context()); err != nil {
		t.Fatal(err)
	}
	sandbox := s.createWithDocker(t, innerdock.SandboxSpec{})
	s.sh(t, sandbox.ID, "docker run -d --name lives busybox:latest sleep 100000")
	look := "docker exec lives echo answers; docker inspect -f '{{.State.Pid}} {{.State.StartedAt}} {{.RestartCount}}' lives"
	before := s.sh(t, sandbox.ID, look)
	for _, moment := range moments {
		over := make(chan struct{})
		go func() {
			defer close(over)
			_, _ = s.client.Snapshot(t.Context(), sandbox.ID, innerdock.SnapshotSpec{})
		}()
		s.await(moment.files, over)
		<-time.After(moment.after)
		s.killed(t, func() { <-over })
		if after := s.sh(t, sandbox.ID, look); after != before {
			t.Errorf("%+v: the container is %q; before it was %q", moment, after, before)
		}
		whole := s.wholeSnapshots(t)
		t.Logf("%+v: %d whole", moment, len(whole))
		for _, snapshot := range whole {
			again, err := s.client.CreateSandbox(t.Context(), innerdock.SandboxSpec{Snapshot: snapshot.ID})
			if err != nil {
				t.Fatal(err)
			}
			if after := s.sh(t, again.ID, look); after != before {
				t.Errorf("%+v: in a copy the container is %q; before it was %q", moment, after, before)
			}
			if _, err := s.client.Terminate(t.Context(), again.ID); err != nil {
				t.Error(err)
			}
			if err := s.client.DeleteSnapshot(t.Context(), snapshot.ID); err != nil {
				t.Error(err)
			}
		}
	}
	snapshot, err := s.client.Snapshot(t.Context(), sandbox.ID, innerdock.SnapshotSpec{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.client.DeleteSnapshot(t.Context(), snapshot.ID); err != nil {
		t.Error(err)
	}
}

// The server is killed in the middle of a fork. There are all copies or none, and
// what they were made from is gone.
func TestAServerKilledOverAFork(t *testing.T) {
	t.Parallel()
	s := ownServer(t, 242)
	first := s.create(t, python, innerdock.SandboxSpec{})
	for _, moment := range append(slices.Clone(moments),
		moment{"[^.]*", 50 * time.Millisecond}, moment{"[^.]*", 100 * time.Millisecond}, moment{"[^.]*", 200 * time.Millisecond}, moment{"[^.]*", 600 * time.Millisecond}) {
		over := make(chan struct{})
		go func() {
			defer close(over)
			_, _ = s.client.Fork(t.Context(), first.ID, 3)
		}()
		s.await(moment.files, over)
		<-time.After(moment.after)
		s.killed(t, func() { <-over })
		if left := s.wholeSnapshots(t); len(left) > 0 {
			t.Errorf("%+v: what the copies were made from is left: %+v", moment, left)
		}
		live, err := s.client.Sandboxes(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%+v: %d copies", moment, len(live)-1)
		if len(live) != 1 && len(live) != 4 {
			t.Errorf("%+v: of 3 copies there are %d", moment, len(live)-1)
		}
		for _, sandbox := range live {
			s.sh(t, sandbox.ID, "true")
			if sandbox.ID == first.ID {
				continue
			}
			if _, err := s.client.Terminate(t.Context(), sandbox.ID); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := s.client.Terminate(t.Context(), first.ID); err != nil {
		t.Error(err)
	}
	waitEmpty(t, s)
}

// What servers leave that are killed at the moments that are too short to meet: a
// snapshot that is complete but for its row, and a fork of which one copy runs.
func TestWhatAKilledServerLeavesOfSnapshots(t *testing.T) {
	t.Parallel()
	s := ownServer(t, 243)
	first := s.create(t, python, innerdock.SandboxSpec{})
	take := func() innerdock.Snapshot {
		t.Helper()
		snapshot, err := s.client.Snapshot(t.Context(), first.ID, innerdock.SnapshotSpec{})
		if err != nil {
			t.Fatal(err)
		}
		return snapshot
	}
	kept, unready, forked := take(), take(), take()
	copied, err := s.client.CreateSandbox(t.Context(), innerdock.SandboxSpec{Snapshot: forked.ID})
	if err != nil {
		t.Fatal(err)
	}
	s.killed(t, func() {
		s.rows(t, func(db *store.Store) {
			rows, err := db.AllSnapshots(t.Context())
			for _, row := range rows {
				if row.ID == kept.ID {
					continue
				}
				row.Ready, row.Fork = row.ID == forked.ID, row.ID == forked.ID
				err = errors.Join(err, db.DeleteSnapshot(t.Context(), row.ID), db.InsertSnapshot(t.Context(), row, store.Quota{Count: 10}))
			}
			if err != nil {
				t.Fatal(err)
			}
		})
		if err := os.Mkdir(filepath.Join(s.data(), "snapshots", ".making-"+unready.ID), 0o700); err != nil {
			t.Fatal(err)
		}
	})
	if left := s.wholeSnapshots(t); len(left) != 1 || left[0].ID != kept.ID {
		t.Errorf("the snapshots are %+v; %s is whole", left, kept.ID)
	}
	ended, err := s.client.Sandbox(t.Context(), copied.ID)
	if err != nil || ended.State != innerdock.StateFailed || !strings.Contains(ended.Reason, "fork again") {
		t.Errorf("the copy is %+v, %v", ended, err)
	}
	s.noTrace(t, copied.ID)
	s.sh(t, first.ID, "true")
	if err := s.client.DeleteSnapshot(t.Context(), kept.ID); err != nil {
		t.Error(err)
	}
}

// asServer speaks to a sandbox's agent as the server does, while there is none.
func (s *server) asServer(t *testing.T, id string, speak func(post func(path, body string))) {
	t.Helper()
	h, err := home.Listen(filepath.Join(s.data(), "sandboxes", id, "control"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	speak(func(path, body string) {
		t.Helper()
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := h.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if answer.StatusCode/100 != 2 {
			t.Fatalf("%s: %s", path, answer.Status)
		}
	})
}

// Docker that is frozen when a server comes goes on, whatever is in the store. It is
// watched from then on; and where it cannot go on, it has failed and says why.
func TestDockerIsNotLeftFrozen(t *testing.T) {
	t.Parallel()
	s := ownServer(t, 244)
	sandbox := s.createWithDocker(t, innerdock.SandboxSpec{})
	is := func(want func(innerdock.DockerStatus) bool) {
		t.Helper()
		eventually(t, func() error {
			status, err := s.client.Docker(t.Context(), sandbox.ID)
			if err == nil && !want(status) {
				err = fmt.Errorf("Docker is %+v", status)
			}
			return err
		})
	}
	s.killed(t, func() {
		s.asServer(t, sandbox.ID, func(post func(path, body string)) { post(wire.PathFreeze, "") })
	})
	s.sh(t, sandbox.ID, "docker ps")
	s.sh(t, sandbox.ID, "kill -9 $(pidof dockerd)")
	is(func(d innerdock.DockerStatus) bool { return d.State == innerdock.DockerReady && d.Restarts == 1 })

	s.killed(t, func() {
		s.asServer(t, sandbox.ID, func(post func(path, body string)) {
			post(wire.PathFreeze, "")
			post("/processes", `{"args": ["sh", "-c", "mv $(command -v dockerd) /away; kill -9 $(pidof dockerd)"]}`)
		})
	})
	is(func(d innerdock.DockerStatus) bool { return d.State == innerdock.DockerFailed && d.Reason != "" })
	if got := s.sh(t, sandbox.ID, "docker ps 2>&1 || true"); !strings.Contains(got, "Docker has failed in this sandbox") {
		t.Errorf("docker says %q", got)
	}
}

// An image cannot be removed while a snapshot needs it.
func TestASnapshotKeepsItsImage(t *testing.T) {
	image := shared.image(t, innerdock.ImageDefinition{PythonVersion: "python3.11", Steps: []innerdock.ImageStep{{Command: "echo kept > /kept"}}})
	sandbox, err := shared.client.CreateSandbox(t.Context(), innerdock.SandboxSpec{Image: image.ID})
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := shared.client.Snapshot(t.Context(), sandbox.ID, innerdock.SnapshotSpec{})
	if err != nil {
		t.Error(err)
	}
	wantCode(t, shared.client.RemoveImage(t.Context(), image.ID), innerdock.CodeConflict, "sandbox "+sandbox.ID)
	if _, err := shared.client.Terminate(t.Context(), sandbox.ID); err != nil {
		t.Fatal(err)
	}
	wantCode(t, shared.client.RemoveImage(t.Context(), image.ID), innerdock.CodeConflict, "snapshot "+snapshot.ID)
	if err := shared.client.DeleteSnapshot(t.Context(), snapshot.ID); err != nil {
		t.Error(err)
	}
	if err := shared.client.RemoveImage(t.Context(), image.ID); err != nil {
		t.Error(err)
	}
}

// Snapshots go when their time is over, when as many later ones are there as are to be
// kept, and with a server whose policy has become stricter; and a tenant's quota holds.
func TestSnapshotsAreKeptByPolicy(t *testing.T) {
	t.Parallel()
	s := ownServer(t, 245)
	first := s.create(t, python, innerdock.SandboxSpec{})
	take := func(spec innerdock.SnapshotSpec) innerdock.Snapshot {
		t.Helper()
		snapshot, err := s.client.Snapshot(t.Context(), first.ID, spec)
		if err != nil {
			t.Fatal(err)
		}
		return snapshot
	}
	left := func(want ...innerdock.Snapshot) {
		t.Helper()
		eventually(t, func() error {
			list, err := s.client.Snapshots(t.Context())
			var ids, wanted []string
			for _, snapshot := range list {
				ids = append(ids, snapshot.ID)
			}
			for _, snapshot := range want {
				wanted = append(wanted, snapshot.ID)
			}
			if err == nil && !slices.Equal(ids, wanted) {
				err = fmt.Errorf("the snapshots are %q, not %q", ids, wanted)
			}
			return err
		})
		s.wholeSnapshots(t)
	}
	a := take(innerdock.SnapshotSpec{})
	b := take(innerdock.SnapshotSpec{TTL: 3600})
	if !a.ExpiresAt.IsZero() || b.ExpiresAt.Sub(b.CreatedAt) != time.Hour || b.Size < 1<<20 {
		t.Errorf("the snapshots are %+v and %+v", a, b)
	}
	left(b, a)
	c := take(innerdock.SnapshotSpec{Keep: 2})
	left(c, b)
	take(innerdock.SnapshotSpec{TTL: 0.001})
	left(c, b)
	_, err := s.client.Snapshot(t.Context(), first.ID, innerdock.SnapshotSpec{TTL: 1e300})
	wantCode(t, err, innerdock.CodeInvalid, "ttl")

	s.flags = []string{"--snapshot-size", fmt.Sprint(c.Size + b.Size + b.Size/2), "--snapshot-max-age", "24h"}
	s.killed(t, func() {})
	_, err = s.client.Snapshot(t.Context(), first.ID, innerdock.SnapshotSpec{})
	wantCode(t, err, innerdock.CodeExhausted, "innerdock snapshot rm")
	left(c, b) // nothing of the one that was too much
	if copies, err := s.client.Fork(t.Context(), first.ID, 1); err != nil {
		t.Errorf("a fork keeps nothing: %v", err)
	} else if _, err := s.client.Terminate(t.Context(), copies[0].ID); err != nil {
		t.Error(err)
	}
	if list, err := s.client.Snapshots(t.Context()); err != nil || len(list) != 2 || list[0].ExpiresAt.Sub(c.CreatedAt) != 24*time.Hour || !list[1].ExpiresAt.Equal(b.ExpiresAt) {
		t.Errorf("the snapshots are %+v, %v", list, err)
	}

	s.flags = []string{"--snapshot-keep", "1", "--snapshot-count", "1"}
	s.killed(t, func() {})
	left(c)
	_, err = s.client.Snapshot(t.Context(), first.ID, innerdock.SnapshotSpec{})
	wantCode(t, err, innerdock.CodeExhausted, "1 are allowed")
	if err := s.client.DeleteSnapshot(t.Context(), c.ID); err != nil {
		t.Error(err)
	}
}
