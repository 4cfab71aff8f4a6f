package e2e

import (
	"context"
	"testing"

	"github.com/innerdock/innerdock"
)

// filtered runs a container whose seccomp profile refuses kill. Its shell waits, and
// then makes that call two hundred times, and so do a child of its and a child of that;
// it ends well if each is refused, and the calls that are not refused are made.
const filtered = `set -e
cat > /tmp/profile.json <<'END'
{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}
END
cat > /tmp/filtered.sh <<'END'
refused() { i=0; while [ $i -lt 200 ]; do kill -0 $$ 2>/dev/null && exit 3; umask 0$((i % 8)); [ $(umask) = 000$((i % 8)) ] || exit 4; i=$((i+1)); done; }
touch /ready
until [ -e /go ]; do sleep 0.05; done
refused
(refused; (refused; grep -q '^Seccomp:.2$' /proc/self/status) ) && exit 42
END
docker run -d --name filtered -v /tmp/filtered.sh:/filtered.sh --security-opt seccomp=/tmp/profile.json busybox sh /filtered.sh
until docker exec filtered test -e /ready; do sleep 0.05; done`

// A seccomp filter holds for the children of a process, for calls that are made
// often, and after a snapshot.
func TestASeccompFilterHolds(t *testing.T) {
	first := shared.createWithDocker(t, innerdock.SandboxSpec{CPU: 2, Memory: "2Gi"})
	shared.sh(t, first.ID, filtered)
	snapshot, err := shared.client.Snapshot(t.Context(), first.ID, innerdock.SnapshotSpec{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := shared.client.DeleteSnapshot(context.WithoutCancel(t.Context()), snapshot.ID); err != nil {
			t.Error(err)
		}
	})
	second := shared.create(t, innerdock.ImageDefinition{}, innerdock.SandboxSpec{Snapshot: snapshot.ID})
	for name, sandbox := range map[string]string{"where it was started": first.ID, "in the copy": second.ID} {
		if got := shared.sh(t, sandbox, "docker exec filtered touch /go && docker wait filtered"); got != "42\n" {
			t.Errorf("%s the container ends with %q", name, got)
		}
	}
}
