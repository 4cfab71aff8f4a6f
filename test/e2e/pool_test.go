package e2e

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
)

// readyPool makes a pool of sandboxes, which are ready when it returns.
func (s *server) readyPool(t *testing.T, def innerdock.ImageDefinition, spec innerdock.PoolSpec) innerdock.Pool {
	t.Helper()
	spec.Image = s.image(t, def).ID
	pool, err := s.client.CreatePool(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	s.filled(t, pool)
	return pool
}

// filled waits until as many sandboxes wait as should.
func (s *server) filled(t *testing.T, want innerdock.Pool) {
	t.Helper()
	eventually(t, func() error {
		pools, err := s.client.Pools(t.Context())
		for _, p := range pools {
			if p.ID == want.ID && p.Ready == want.Size {
				return nil
			}
		}
		return errors.Join(err, fmt.Errorf("pools: %+v\n%s", pools, s.log))
	})
}

// Those who ask at the same time each get a sandbox of their own, as they asked for
// it; the pool is filled again; and what does not fit is made as ever.
func TestPool(t *testing.T) {
	t.Parallel()
	s := ownServer(t, 238)
	if err := s.seed(t.Context()); err != nil {
		t.Fatal(err)
	}
	pool := s.readyPool(t, withDocker, innerdock.PoolSpec{Size: 3, Docker: innerdock.DockerSpec{Enabled: true}})
	if live, err := s.client.Sandboxes(t.Context(), true); err != nil || len(live) > 0 {
		t.Errorf("somebody sees what waits: %+v, %v", live, err)
	}

	got := make([]innerdock.Sandbox, 3)
	var asking sync.WaitGroup
	for i := range got {
		asking.Go(func() {
			got[i] = s.create(t, withDocker, innerdock.SandboxSpec{Name: fmt.Sprintf("claimed-%d", i), CPU: 0.5,
				Env: map[string]string{"MINE": fmt.Sprint(i)}, Docker: innerdock.DockerSpec{Enabled: true},
				Network: innerdock.NetworkSpec{Block: i == 0}})
		})
	}
	asking.Wait()
	seen := map[string]bool{}
	for i, sandbox := range got {
		if sandbox.Start != innerdock.StartPool || sandbox.Docker.State != innerdock.DockerReady || sandbox.State != innerdock.StateRunning || seen[sandbox.ID] {
			t.Errorf("it is %+v", sandbox)
		}
		seen[sandbox.ID] = true
		name := fmt.Sprintf("claimed-%d", i)
		if out := s.sh(t, name, "hostname; echo $MINE; tail -n 1 /etc/hosts; docker run --rm hello-world | head -n 1"); out !=
			fmt.Sprintf("%s\n%d\n%s\t%s\nHello from Docker!\n", name, i, sandbox.Address, name) {
			t.Errorf("inside it is %q", out)
		}
		before, began := hostCPUSeconds(t, sandbox.ID), time.Now()
		s.sh(t, sandbox.ID, "timeout 2 sh -c 'while :; do :; done' || true")
		if used, took := hostCPUSeconds(t, sandbox.ID)-before, time.Since(began).Seconds(); used > 0.5*took+0.6 {
			t.Errorf("with half a core it used %.1f s in %.1f", used, took)
		}
	}
	s.filled(t, pool)

	_, err := s.client.CreateSandbox(t.Context(), innerdock.SandboxSpec{Image: pool.Image, Name: "claimed-0", Docker: innerdock.DockerSpec{Enabled: true}})
	wantCode(t, err, innerdock.CodeConflict, "claimed-0")
	s.filled(t, pool) // nobody was lost by that
	for _, spec := range []innerdock.SandboxSpec{{Memory: "2Gi"}, {Disk: "5Gi"}, {Docker: innerdock.DockerSpec{Profile: innerdock.ProfileMinimal}}} {
		if other := s.createWithDocker(t, spec); other.Start == innerdock.StartPool {
			t.Errorf("%+v came from the pool", spec)
		}
	}

	if err := s.client.DeletePool(t.Context(), pool.ID); err != nil {
		t.Fatal(err)
	}
	wantCode(t, s.client.DeletePool(t.Context(), pool.ID), innerdock.CodeNotFound, pool.ID)
	for _, sandbox := range got {
		s.sh(t, sandbox.ID, "docker ps") // it lives on
	}
}

// The server is killed while it fills a pool and while sandboxes are taken from it.
// What waited and what was half taken is gone; the pool is filled again.
func TestAServerKilledOverAPool(t *testing.T) {
	t.Parallel()
	s := ownServer(t, 239)
	pool := s.readyPool(t, python, innerdock.PoolSpec{Size: 2})
	for i := range 8 {
		var asking sync.WaitGroup
		for range 3 {
			asking.Go(func() { _, _ = s.client.CreateSandbox(t.Context(), innerdock.SandboxSpec{Image: pool.Image}) })
		}
		<-time.After(time.Duration(i*i) * 3 * time.Millisecond)
		if err := s.signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		asking.Wait()
		if err := s.start(t.Context()); err != nil {
			t.Fatal(err)
		}
		live, err := s.client.Sandboxes(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		for _, sandbox := range live {
			s.sh(t, sandbox.ID, "true") // whoever is told of it has a whole one
			if _, err := s.client.Terminate(t.Context(), sandbox.ID); err != nil {
				t.Error(err)
			}
		}
		s.filled(t, pool)
	}
	sandbox := s.create(t, python, innerdock.SandboxSpec{})
	s.wantStart(t, sandbox, innerdock.StartPool)
	if err := s.client.DeletePool(t.Context(), pool.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Terminate(t.Context(), sandbox.ID); err != nil {
		t.Fatal(err)
	}
	waitEmpty(t, s)
}

// A server has the pools that it is started with, as it is started with them, besides
// those that somebody made.
func TestDeclaredPools(t *testing.T) {
	t.Parallel()
	s := ownServer(t, 248, "--pool-of", "python3.11,size=1")
	declared := func(size int) innerdock.Pool {
		t.Helper()
		var found innerdock.Pool
		eventually(t, func() error { // its image may have to be built
			pools, err := s.client.Pools(t.Context())
			for _, p := range pools {
				if p.Declared && p.Size == size && p.Ready == size {
					found = p
					return nil
				}
			}
			return errors.Join(err, fmt.Errorf("pools: %+v\n%s", pools, s.log))
		})
		return found
	}
	pool := declared(1)
	wantCode(t, s.client.DeletePool(t.Context(), pool.ID), innerdock.CodeConflict, "--pool-of")
	wantCode(t, s.client.RemoveImage(t.Context(), pool.Image), innerdock.CodeConflict, "pool "+pool.ID)
	s.wantStart(t, s.create(t, python, innerdock.SandboxSpec{}), innerdock.StartPool)
	made := s.readyPool(t, python, innerdock.PoolSpec{Size: 1, Memory: "512Mi"})

	s.killed(t, func() { s.flags = []string{"--pool-of", "python3.11,size=2,memory=256Mi"} })
	if pool := declared(2); pool.Memory != 256<<20 {
		t.Errorf("the declared pool is %+v", pool)
	}
	s.killed(t, func() { s.flags = nil })
	s.filled(t, made)
	if pools, err := s.client.Pools(t.Context()); err != nil || len(pools) != 1 {
		t.Errorf("pools: %+v, %v", pools, err)
	}
	if err := s.client.DeletePool(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
}

// A pool gives its addresses to those who ask for a sandbox of another kind.
func TestPoolsGiveWay(t *testing.T) {
	t.Parallel()
	s, err := newServer(240)
	if err != nil {
		t.Fatal(err)
	}
	s.pool = strings.Replace(s.pool, "/20", "/28", 1)
	s.startFor(t)
	image := s.image(t, python).ID
	_, err = s.client.CreatePool(t.Context(), innerdock.PoolSpec{Image: image, Size: 100})
	wantCode(t, err, innerdock.CodeInvalid, "size")
	_, whole, _ := strings.Cut(err.Error(), "the ")
	capacity := 0
	if _, err := fmt.Sscanf(whole, "%d sandboxes", &capacity); err != nil || capacity < 2 {
		t.Fatalf("capacity %d, %v", capacity, err)
	}
	made := s.cli(t, nil, "pool", "create", "--size", fmt.Sprint(capacity), "python3.11")
	id := strings.TrimSpace(made.stdout)
	s.filled(t, innerdock.Pool{ID: id, Size: capacity})
	other := s.create(t, python, innerdock.SandboxSpec{Memory: "512Mi"})
	s.sh(t, other.ID, "true")
	if listed := s.cli(t, nil, "pool", "ls"); !strings.Contains(listed.stdout, id) || !strings.Contains(listed.stdout, fmt.Sprintf("%d/%d", capacity-1, capacity)) {
		t.Errorf("%+v", listed)
	}
	if removed := s.cli(t, nil, "pool", "rm", id); removed.code != 0 {
		t.Errorf("%+v", removed)
	}
}
