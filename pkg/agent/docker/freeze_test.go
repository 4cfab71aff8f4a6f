package docker

import (
	"syscall"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
)

// Calls wait from a freeze to the next start, which finds the same dockerd; one
// that died meanwhile is started anew.
func TestFreezeUntilTheNextStart(t *testing.T) {
	r := newRig(t, "dockerd", "containerd")
	_, first, err := r.start(time.Minute, full)
	if err != nil {
		t.Fatal(err, r.log())
	}
	freeze := func() {
		t.Helper()
		if err := r.s.Freeze(t.Context()); err != nil {
			t.Fatal(err)
		}
		if state := r.s.Report().State; state != innerdock.DockerStarting {
			t.Errorf("frozen, Docker is %s", state)
		}
	}
	freeze()
	waited := make(chan error, 1)
	go func() { waited <- r.s.Wait(t.Context()) }()
	moved := full
	moved.Address = "10.0.0.3"
	steps, again, err := r.start(time.Minute, moved)
	if err != nil || len(steps) != 1 || again.Version != first.Version {
		t.Errorf("the dockerd that ran comes back as %v %+v, %v; it was %+v", steps, again, err, first)
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}

	freeze()
	if err := r.s.dockerd.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-r.s.dockerd.Done()
	if _, last, err := r.start(time.Minute, moved); err != nil || last.Version == first.Version {
		t.Errorf("in place of a dead dockerd there is %+v, %v; it was %+v", last, err, first)
	}
}
