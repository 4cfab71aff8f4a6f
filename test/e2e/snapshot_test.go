package e2e

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/innerdock/innerdock"
)

// compose is a stack with a web server behind a published port, a volume, a
// process that counts in its memory, and a client of the server.
const compose = `set -e; mkdir -p /workspace/app; cd /workspace/app
cat > compose.yaml <<'END'
services:
  web: {image: "nginx:latest", ports: ["8080:80"], volumes: ["data:/data"]}
  count: {image: "busybox:latest", command: ["sh", "-c", "i=0; while true; do i=$$((i+1)); echo $$i > /tmp/n.new; mv /tmp/n.new /tmp/n; usleep 50000; done"]}
  client: {image: "busybox:latest", command: ["sleep", "100000"]}
volumes: {data: {}}
END
docker compose up -d
docker exec app-web-1 sh -c 'echo kept > /data/file'
until docker exec app-count-1 test -s /tmp/n; do sleep 0.1; done`

// stackWorks looks at the stack from all sides, and returns the processes of
// its containers.
func stackWorks(t *testing.T, sandbox string) string {
	t.Helper()
	sh := func(line string) string { t.Helper(); return shared.sh(t, sandbox, line) }
	if got := sh("curl -s -m 20 -o /dev/null -w '%{http_code}' http://localhost:8080/"); got != "200" {
		t.Errorf("%s: through the published port it answers %q", sandbox, got)
	}
	if got := sh("docker exec app-client-1 wget -T 20 -qO- http://web/ | head -c 15"); !strings.HasPrefix(got, "<!DOCTYPE html>") {
		t.Errorf("%s: by its name on the network the service answers %q", sandbox, got)
	}
	if got := sh("docker exec app-web-1 cat /data/file"); got != "kept\n" {
		t.Errorf("%s: the volume holds %q", sandbox, got)
	}
	if got := sh(`n=$(docker exec app-count-1 cat /tmp/n); for i in $(seq 100); do [ "$(docker exec app-count-1 cat /tmp/n)" -gt "$n" ] && break; done; [ $i -lt 100 ] && echo counts`); got != "counts\n" {
		t.Errorf("%s: the counter stands still", sandbox)
	}
	return sh("docker inspect -f '{{.State.Pid}} {{.State.StartedAt}} {{.RestartCount}}' app-web-1 app-count-1 app-client-1; docker exec app-client-1 ip addr show eth0")
}

// A sandbox with a stack of containers goes on after its snapshot, and others
// go on from the snapshot: with the same processes and networks, and a name and
// address of their own.
func TestSnapshotOfAStack(t *testing.T) {
	t.Parallel()
	first := shared.createWithDocker(t, innerdock.SandboxSpec{CPU: 2, Memory: "2Gi", Env: map[string]string{"STAGE": "one"}})
	shared.sh(t, first.ID, compose)
	before := stackWorks(t, first.ID)
	snapshot, err := shared.client.Snapshot(t.Context(), first.ID, innerdock.SnapshotSpec{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := shared.client.DeleteSnapshot(context.WithoutCancel(t.Context()), snapshot.ID); err != nil {
			t.Error(err)
		}
	})
	if snapshot.Sandbox != first.ID || !snapshot.Docker || snapshot.Size == 0 {
		t.Errorf("the snapshot is %+v", snapshot)
	}
	if after := stackWorks(t, first.ID); after != before {
		t.Errorf("after the snapshot the containers are\n%s; before they were\n%s", after, before)
	}

	second := shared.create(t, innerdock.ImageDefinition{}, innerdock.SandboxSpec{Snapshot: snapshot.ID, Name: "again", Env: map[string]string{"STAGE": "two"}})
	if second.Start != innerdock.StartSnapshot || second.Address == first.Address {
		t.Errorf("the copy is %+v", second)
	}
	if after := stackWorks(t, second.ID); after != before {
		t.Errorf("in the copy the containers are\n%s; before they were\n%s", after, before)
	}
	if got := shared.sh(t, second.ID, "hostname; echo $STAGE"); got != "again\ntwo\n" {
		t.Errorf("the copy says %q", got)
	}
	if shared.sh(t, first.ID, "cat /etc/machine-id") == shared.sh(t, second.ID, "cat /etc/machine-id") {
		t.Error("both have one machine ID")
	}
	shared.sh(t, second.ID, "docker exec app-web-1 sh -c 'echo other > /data/file'; cd /workspace/app && docker compose restart web && docker compose down")
	if got := shared.sh(t, first.ID, "docker exec app-web-1 cat /data/file"); got != "kept\n" {
		t.Errorf("what the copy wrote is in the first: %q", got)
	}
}

// Processes without Docker go on as well, in every copy.
func TestFork(t *testing.T) {
	first := shared.create(t, python, innerdock.SandboxSpec{})
	shared.sh(t, first.ID, `setsid sh -c 'i=0; while true; do i=$((i+1)); echo $i > /tmp/n.new; mv /tmp/n.new /tmp/n; sleep 0.05; done' >/dev/null 2>&1 </dev/null & until test -s /tmp/n; do sleep 0.05; done`)
	copies, err := shared.client.Fork(t.Context(), first.ID, 3)
	if err != nil || len(copies) != 3 {
		t.Fatalf("%+v, %v", copies, err)
	}
	addresses := map[string]bool{first.Address: true}
	for _, sandbox := range copies {
		t.Cleanup(func() {
			if _, err := shared.client.Terminate(context.WithoutCancel(t.Context()), sandbox.ID); err != nil {
				t.Error(err)
			}
		})
		if addresses[sandbox.Address] {
			t.Errorf("two sandboxes have the address %s", sandbox.Address)
		}
		addresses[sandbox.Address] = true
		shared.sh(t, sandbox.ID, `n=$(cat /tmp/n); until [ "$(cat /tmp/n)" -gt "$n" ]; do sleep 0.05; done`)
	}
	shared.sh(t, first.ID, "true") // it can be reached at once
	if left, err := shared.client.Snapshots(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("what the copies were made from is left: %+v, %v", left, err)
	}
}

// What a snapshot fixes cannot be asked for, and one that was removed cannot be used.
func TestSnapshotFixesTheLayout(t *testing.T) {
	first := shared.create(t, python, innerdock.SandboxSpec{})
	snapshot, err := shared.client.Snapshot(t.Context(), first.ID, innerdock.SnapshotSpec{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = shared.client.CreateSandbox(t.Context(), innerdock.SandboxSpec{Snapshot: snapshot.ID, Disk: "1Gi"})
	wantCode(t, err, innerdock.CodeInvalid, "disk")
	if err := shared.client.DeleteSnapshot(t.Context(), snapshot.ID); err != nil {
		t.Error(err)
	}
	_, err = shared.client.CreateSandbox(t.Context(), innerdock.SandboxSpec{Snapshot: snapshot.ID})
	wantCode(t, err, innerdock.CodeNotFound)
}

// The files of a sandbox become an image: what it wrote and deleted below /, but not
// /tmp, and nothing that is the sandbox's own.
func TestFilesBecomeAnImage(t *testing.T) {
	first := shared.create(t, python, innerdock.SandboxSpec{Env: map[string]string{"SECRET": "mine"}})
	shared.sh(t, first.ID, "mkdir -p /srv/app && echo made > /srv/app/file && chown 1234 /srv/app/file && rm /etc/debian_version && echo lost > /tmp/file && ln -sf /proc/1/root/etc /srv/out")
	image, err := shared.client.Commit(t.Context(), first.ID)
	if err != nil {
		t.Fatal(err)
	}
	shared.sh(t, first.ID, "true") // it goes on
	second, err := shared.client.CreateSandbox(t.Context(), innerdock.SandboxSpec{Image: image.ID, Name: "second"})
	if err != nil {
		t.Fatal(err)
	}
	look := `cat /srv/app/file; stat -c %u /srv/app/file; ls /tmp/file /etc/debian_version 2>/dev/null; cat /etc/hostname; echo "secret:$SECRET"`
	if got, want := shared.sh(t, second.ID, look), "made\n1234\nsecond\nsecret:\n"; got != want {
		t.Errorf("in a sandbox of the image it is %q, not %q", got, want)
	}
	if _, err := shared.client.Terminate(t.Context(), second.ID); err != nil {
		t.Fatal(err)
	}
	if err := shared.client.RemoveImage(t.Context(), image.ID); err != nil {
		t.Error(err)
	}
	_, err = shared.client.Commit(t.Context(), second.ID)
	wantCode(t, err, innerdock.CodeSandboxTerminated)
}

// Who follows the output of a command over snapshots has all of it, in order.
func TestOutputIsFollowedOverASnapshot(t *testing.T) {
	first := shared.create(t, python, innerdock.SandboxSpec{})
	var got bytes.Buffer
	began, over := make(chan struct{}), make(chan error, 1)
	go func() {
		// It ends when it is told to, so after the snapshots.
		process, err := shared.client.Exec(t.Context(), first.ID, innerdock.ProcessSpec{Args: []string{"sh", "-c", "i=0; until [ -e /tmp/stop ]; do i=$((i+1)); echo $i; sleep 0.01; done; echo end; exit 7"}},
			innerdock.Streams{Stdout: &got, Started: func(innerdock.Process) { close(began) }})
		if err == nil && (process.ExitCode == nil || *process.ExitCode != 7) {
			err = fmt.Errorf("it ended as %+v", process)
		}
		over <- err
	}()
	select {
	case <-began:
	case err := <-over:
		t.Fatal(err)
	}
	for range 2 {
		snapshot, err := shared.client.Snapshot(t.Context(), first.ID, innerdock.SnapshotSpec{})
		if err != nil {
			t.Fatal(err)
		}
		if err := shared.client.DeleteSnapshot(t.Context(), snapshot.ID); err != nil {
			t.Error(err)
		}
	}
	shared.sh(t, first.ID, "touch /tmp/stop")
	if err := <-over; err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(got.String())
	for i, line := range lines[:len(lines)-1] {
		if line != strconv.Itoa(i+1) {
			t.Fatalf("line %d is %q", i+1, line)
		}
	}
	if lines[len(lines)-1] != "end" {
		t.Errorf("the last line is %q", lines[len(lines)-1])
	}
}
