package e2e

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
)

// dockerState waits until Docker in the sandbox is in a state, after so many
// restarts at least.
func dockerState(t *testing.T, id string, state innerdock.DockerState, restarts int) innerdock.DockerStatus {
	t.Helper()
	var status innerdock.DockerStatus
	eventually(t, func() (err error) {
		if status, err = shared.client.Docker(t.Context(), id); err == nil && (status.State != state || status.Restarts < restarts) {
			err = fmt.Errorf("Docker is %+v", status)
		}
		return err
	})
	return status
}

// dockerd and containerd are killed, again and again: calls wait meanwhile, and
// what ran is as after a crash of dockerd anywhere.
func TestDockerComesBack(t *testing.T) {
	t.Parallel()
	sandbox := shared.createWithDocker(t, innerdock.SandboxSpec{CPU: 2, Memory: "4Gi"})
	sh := func(line string) string { t.Helper(); return shared.sh(t, sandbox.ID, line) }
	sh(`docker network create app
docker run -d --name always --network app --restart always -p 8080:80 nginx:latest
docker run -d --name plain -p 8081:80 nginx:latest
docker pull -q busybox:latest
docker run -d --name client --restart always -v /var/run/docker.sock:/var/run/docker.sock -v /usr:/usr:ro nginx:latest sleep 100000`)
	restarts := 0
	for _, killed := range []string{"dockerd", "containerd", "dockerd", "dockerd", "containerd"} {
		restarts++
		sh("kill -9 $(pidof " + killed + ")")
		began := time.Now()
		sh("docker run --rm busybox:latest true") // waits for both daemons
		t.Logf("%s was killed; a call was answered after %.1f s", killed, time.Since(began).Seconds())
		status := dockerState(t, sandbox.ID, innerdock.DockerReady, restarts)
		if status.Restarts != restarts || status.Reason != "" {
			t.Errorf("status %+v after %d restarts", status, restarts)
		}
		if got := sh("docker run --rm --network app busybox:latest wget -qO- http://always/ | head -c 15"); !strings.HasPrefix(got, "<!DOCTYPE html>") {
			t.Errorf("a container that is always restarted answers %q", got)
		}
		if got := sh("curl -s -o /dev/null -w '%{http_code}' http://localhost:8080/"); got != "200" {
			t.Errorf("its published port answers %q", got)
		}
		if got := sh("docker exec client curl -s --unix-socket /var/run/docker.sock http://docker/_ping"); got != "OK" {
			t.Errorf("a container that has the socket gets %q", got)
		}
		want := "exited"
		if killed == "containerd" {
			want = "running"
		}
		if got := sh("docker inspect -f '{{.State.Status}}' plain"); got != want+"\n" {
			t.Errorf("%s was killed, and a plain container is %q", killed, got)
		}
		// Its name and its port are free again.
		sh("docker rm -f plain && docker run -d --name plain -p 8081:80 nginx:latest && curl -s --retry 10 --retry-all-errors -o /dev/null http://localhost:8081/")
		eventually(t, func() error { // a worker of nginx is called as its master is at first
			if got := sh("grep -l '^nginx: master' /proc/[0-9]*/cmdline | wc -l; docker ps -q | wc -l; pidof dockerd containerd | wc -w"); got != "2\n3\n2\n" {
				return fmt.Errorf("servers, containers and daemons that run: %q", got)
			}
			return nil
		})
	}
	log, err := shared.client.Logs(t.Context(), sandbox.ID)
	if err != nil || !strings.Contains(string(log), "dockerd exited (SIGKILL)") || !strings.Contains(string(log), "containerd exited (SIGKILL)") {
		t.Errorf("the sandbox's log tells of no death: %s, %v", log, err)
	}
}

// A dockerd that cannot come back has failed, says why to everybody, and its log
// stays.
func TestDockerThatDoesNotComeBack(t *testing.T) {
	t.Parallel()
	sandbox := shared.createWithDocker(t, innerdock.SandboxSpec{})
	shared.sh(t, sandbox.ID, `d=$(command -v dockerd) && mv $d $d.away && printf '#!/bin/sh\necho the disk is made of cheese >&2\nexit 3\n' > $d && chmod +x $d && kill -9 $(pidof dockerd)`)
	status := dockerState(t, sandbox.ID, innerdock.DockerFailed, 1)
	if !strings.Contains(status.Reason, "exit code 3") || !strings.Contains(status.Reason, "made of cheese") {
		t.Errorf("status %+v", status)
	}
	_, err := shared.client.WaitDocker(t.Context(), sandbox.ID)
	wantCode(t, err, innerdock.CodeDockerFailed, "made of cheese")
	if got := shared.sh(t, sandbox.ID, "docker ps 2>&1 || true"); !strings.Contains(got, "Docker has failed in this sandbox") || !strings.Contains(got, "exit code 3") {
		t.Errorf("docker says %q", got)
	}
	if log, err := shared.client.DockerLogs(t.Context(), sandbox.ID); err != nil || !strings.Contains(string(log), "made of cheese") {
		t.Errorf("its log is %.300q, %v", log, err)
	}
}

// Whoever calls Docker as soon as there is a sandbox waits, and is answered.
func TestTheFirstCallNeedNotWaitForDocker(t *testing.T) {
	t.Parallel()
	sandbox, err := shared.client.CreateSandbox(t.Context(), innerdock.SandboxSpec{Image: shared.image(t, withDocker).ID, Docker: innerdock.DockerSpec{Enabled: true}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shared.client.Terminate(context.WithoutCancel(t.Context()), sandbox.ID) })
	if got := shared.sh(t, sandbox.ID, "stat -c '%F %a' /run/docker.sock; docker version --format '{{.Server.Version}}'"); !strings.HasPrefix(got, "socket 660\n") {
		t.Errorf("the first call is answered %q", got)
	}
}

// Containers of a sandbox that is terminated get SIGTERM and the time that was
// given; one that does not care holds up nobody.
func TestTerminateGrace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, script, says string
		grace              time.Duration
		least, most        time.Duration
	}{
		{"polite", `trap "sleep 2; echo my last will; exit" TERM`, "my last will", time.Minute, 2 * time.Second, 50 * time.Second},
		{"stubborn", `trap "echo never" TERM`, "never", 4 * time.Second, 4 * time.Second, 50 * time.Second},
		{"at once", `trap "echo never" TERM`, "", 0, 0, 9 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			sandbox := shared.createWithDocker(t, innerdock.SandboxSpec{})
			shared.sh(t, sandbox.ID, `docker run -d --name will --stop-timeout 60 busybox:latest sh -c '`+c.script+`; echo up; while :; do sleep 0.1; done'`)
			// Its output, to somebody whom SIGTERM does not end.
			var out lockedBuffer
			up := make(chan struct{})
			var once sync.Once
			var following sync.WaitGroup
			following.Go(func() {
				shared.client.Exec(t.Context(), sandbox.ID, innerdock.ProcessSpec{Args: []string{"sh", "-c",
					"trap '' TERM; exec curl -sN --output - --unix-socket /var/run/docker.sock 'http://docker/containers/will/logs?follow=1&stdout=1'"}},
					innerdock.Streams{Stdout: writerFunc(func(p []byte) (int, error) {
						if bytes.Contains(p, []byte("up")) {
							once.Do(func() { close(up) })
						}
						return out.Write(p)
					})})
			})
			<-up
			began := time.Now()
			ended, err := shared.client.TerminateWithin(t.Context(), sandbox.ID, c.grace)
			took := time.Since(began)
			if err != nil || ended.State != innerdock.StateTerminated {
				t.Fatalf("%+v, %v", ended, err)
			}
			following.Wait()
			if got := out.String(); !strings.Contains(got, c.says) {
				t.Errorf("the container said %q", got)
			}
			if took < c.least || took > c.most {
				t.Errorf("it took %v", took)
			}
		})
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
