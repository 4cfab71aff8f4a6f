package e2e

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/innerdock/innerdock"
)

// exported is the archive of a snapshot.
func exported(t *testing.T, client *innerdock.Client, id string, withImage bool) []byte {
	t.Helper()
	archive, err := client.ExportSnapshot(t.Context(), id, withImage)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	content, err := io.ReadAll(archive)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// A snapshot goes on on another server, which has other directories and not its image:
// its container is alive there. What was cut short or changed on the way is refused
// and leaves nothing.
func TestSnapshotsTravel(t *testing.T) {
	t.Parallel()
	first := ownServer(t, 246, seededOnly...)
	if err := first.seed(t.Context()); err != nil {
		t.Fatal(err)
	}
	sandbox := first.createWithDocker(t, innerdock.SandboxSpec{})
	first.sh(t, sandbox.ID, "docker run -d --name lives busybox:latest sleep 100000; echo kept > /srv/file; echo kept > /tmp/file")
	look := "docker exec lives echo answers; docker inspect -f '{{.State.Pid}} {{.State.StartedAt}} {{.RestartCount}}' lives; cat /srv/file /tmp/file"
	before := first.sh(t, sandbox.ID, look)
	snapshot, err := first.client.Snapshot(t.Context(), sandbox.ID, innerdock.SnapshotSpec{})
	if err != nil {
		t.Fatal(err)
	}
	whole, bare := exported(t, first.client, snapshot.ID, true), exported(t, first.client, snapshot.ID, false)
	t.Logf("the snapshot has %d MiB, its archive %d, without the image %d", snapshot.Size>>20, len(whole)>>20, len(bare)>>20)

	images := t.TempDir()
	second := ownServer(t, 247, "--images", images)
	refused := func(archive []byte, code innerdock.Code, words ...string) {
		t.Helper()
		_, err := second.client.ImportSnapshot(t.Context(), bytes.NewReader(archive))
		wantCode(t, err, code, words...)
		if left := second.wholeSnapshots(t); len(left) > 0 {
			t.Errorf("what was refused is there: %+v", left)
		}
	}
	refused(bare, innerdock.CodeImageNotFound, "export it with its image")
	refused(bare[:len(bare)/2], innerdock.CodeInvalid, "export the snapshot again")
	changed := bytes.Clone(bare)
	changed[len(changed)/2] ^= 1
	refused(changed, innerdock.CodeInvalid, "not what was written")
	refused(bytes.Replace(bare, []byte(`"build":"`), []byte(`"build":"x`), 1), innerdock.CodeInvalid)
	foreign := bytes.Clone(bare)
	at := bytes.Index(foreign, []byte(`"build":"`)) + len(`"build":"`)
	foreign[at] = 'z'
	refused(foreign, innerdock.CodeUnsupported, "same version")

	there, err := second.client.ImportSnapshot(t.Context(), bytes.NewReader(whole))
	if err != nil {
		t.Fatal(err)
	}
	if there.Size != snapshot.Size || there.Disk != snapshot.Disk || !there.Docker || there.ID == snapshot.ID {
		t.Errorf("it is %+v there, and was %+v", there, snapshot)
	}
	second.killed(t, func() {})
	again, err := second.client.CreateSandbox(t.Context(), innerdock.SandboxSpec{Snapshot: there.ID})
	if err != nil {
		t.Fatal(err)
	}
	if after := second.sh(t, again.ID, look); after != before {
		t.Errorf("there it is %q; before it was %q", after, before)
	}
	copies, err := second.client.Fork(t.Context(), again.ID, 1) // of what came along
	if err != nil {
		t.Fatal(err)
	}
	if after := second.sh(t, copies[0].ID, look); after != before {
		t.Errorf("in a fork there it is %q; before it was %q", after, before)
	}
	wantCode(t, second.client.RemoveImage(t.Context(), there.Image), innerdock.CodeConflict)
	if err := second.client.DeleteSnapshot(t.Context(), there.ID); err != nil {
		t.Error(err)
	}
}

// A tenant exports its own snapshots alone, and imports what this server has sealed:
// what another one has, only the server's own tenant may bring in, or who has its key.
func TestSnapshotArchivesOfTenants(t *testing.T) {
	t.Parallel()
	s := listening(t, 248)
	acme, other := s.tenant(t, "acme"), s.tenant(t, "other")
	sandbox, err := acme.CreateSandbox(t.Context(), innerdock.SandboxSpec{Image: s.image(t, python).ID})
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := acme.Snapshot(t.Context(), sandbox.ID, innerdock.SnapshotSpec{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := acme.Terminate(t.Context(), sandbox.ID); err != nil {
		t.Error(err)
	}
	for _, stranger := range []*innerdock.Client{other, s.client} {
		_, err = stranger.ExportSnapshot(t.Context(), snapshot.ID, true)
		wantCode(t, err, innerdock.CodeNotFound)
		_, err = stranger.CreateSandbox(t.Context(), innerdock.SandboxSpec{Snapshot: snapshot.ID})
		wantCode(t, err, innerdock.CodeNotFound)
	}
	archive := exported(t, acme, snapshot.ID, false)
	mine, err := other.ImportSnapshot(t.Context(), bytes.NewReader(archive)) // who was given it has it
	if err != nil {
		t.Fatal(err)
	}
	if list, err := acme.Snapshots(t.Context()); err != nil || len(list) != 1 || list[0].ID != snapshot.ID {
		t.Errorf("the first tenant sees %+v, %v", list, err)
	}
	_, err = acme.ExportSnapshot(t.Context(), mine.ID, true)
	wantCode(t, err, innerdock.CodeNotFound)

	key := filepath.Join(s.data(), "snapshot.key")
	ours, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(key, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.Repeat("another server's", 2))
	_, err = other.ImportSnapshot(t.Context(), bytes.NewReader(archive))
	wantCode(t, err, innerdock.CodeForbidden, "snapshot.key")
	trusted, err := s.client.ImportSnapshot(t.Context(), bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	write(string(ours))
	last, err := other.ImportSnapshot(t.Context(), bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	s.wholeSnapshotsOf(t, 4)
	for id, client := range map[string]*innerdock.Client{snapshot.ID: acme, mine.ID: other, trusted.ID: s.client, last.ID: other} {
		if err := client.DeleteSnapshot(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

// The server is killed in the middle of an import: the next one has nothing of it.
func TestAServerKilledOverAnImport(t *testing.T) {
	t.Parallel()
	s := ownServer(t, 249)
	first := s.create(t, python, innerdock.SandboxSpec{})
	snapshot, err := s.client.Snapshot(t.Context(), first.ID, innerdock.SnapshotSpec{})
	if err != nil {
		t.Fatal(err)
	}
	archive := exported(t, s.client, snapshot.ID, false)
	over := make(chan struct{})
	reader, writer := io.Pipe()
	go func() {
		defer close(over)
		if _, err := s.client.ImportSnapshot(t.Context(), reader); err == nil {
			t.Error("half an archive was imported")
		}
	}()
	if _, err := writer.Write(archive[:len(archive)/2]); err != nil { // no more than that ever comes
		t.Fatal(err)
	}
	s.await(".making-*/*", over)
	s.killed(t, func() {
		_ = writer.CloseWithError(io.ErrUnexpectedEOF)
		<-over
	})
	if left := s.wholeSnapshots(t); len(left) != 1 || left[0].ID != snapshot.ID {
		t.Errorf("the snapshots are %+v", left)
	}
	if err := s.client.DeleteSnapshot(t.Context(), snapshot.ID); err != nil {
		t.Error(err)
	}
}

// wholeSnapshotsOf fails the test unless so many snapshots are there, of all tenants.
func (s *server) wholeSnapshotsOf(t *testing.T, want int) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.data(), "snapshots"))
	if err != nil || len(entries) != want {
		t.Errorf("there are %d snapshots, %v; not %d", len(entries), err, want)
	}
}
