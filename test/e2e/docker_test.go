package e2e

import (
	"strings"
	"testing"

	"github.com/innerdock/innerdock"
)

func TestDockerWithItsOwnNetworks(t *testing.T) {
	t.Parallel()
	sandbox := shared.createWithDocker(t, innerdock.SandboxSpec{CPU: 2, Memory: "4Gi"})
	status, err := shared.client.WaitDocker(t.Context(), sandbox.ID)
	if err != nil || status.State != innerdock.DockerReady || status.Version == "" || status.Seconds <= 0 {
		t.Fatalf("%+v, %v", status, err)
	}
	t.Logf("Docker %s was ready after %.2f s", status.Version, status.Seconds)
	sh := func(line string) string { t.Helper(); return shared.sh(t, sandbox.ID, line) }

	if got := sh("docker run --rm hello-world"); !strings.Contains(got, "Hello from Docker!") {
		t.Errorf("hello-world says %q", got)
	}
	if got := sh("docker info --format '{{.Driver}}'"); got != "overlay2\n" && got != "overlayfs\n" { // before Docker 29, and since
		t.Errorf("the storage driver is %q", got)
	}
	sh("docker network create app && docker run -d --name web --network app -p 8080:80 nginx:latest")
	if got := sh("docker run --rm --network app busybox:latest wget -qO- http://web/ | head -c 15"); !strings.HasPrefix(got, "<!DOCTYPE html>") {
		t.Errorf("by its name on the network the service answers %q", got)
	}
	if got := sh("curl -s -o /dev/null -w '%{http_code}' http://localhost:8080/"); got != "200" {
		t.Errorf("through the published port it answers %q", got)
	}
	if got := sh("docker stats --no-stream --format '{{.NetIO}}' web"); strings.HasPrefix(got, "0B") {
		t.Errorf("its traffic is %q", got)
	}
	sh("mkdir -p /workspace/app && cd /workspace/app && printf 'FROM busybox:latest\\nRUN echo built > /made\\nCMD cat /made\\n' > Dockerfile && docker build -q -t app .")
	if got := sh("docker run --rm app"); got != "built\n" {
		t.Errorf("the built image says %q", got)
	}
	sh(`cat > /workspace/app/compose.yaml <<'END'
services:
  db: {image: "nginx:latest", healthcheck: {test: ["CMD", "true"], interval: 1s}}
  probe: {image: "busybox:latest", command: wget -qO /dev/null http://db/, depends_on: {db: {condition: service_healthy}}}
END`)
	sh("cd /workspace/app && docker compose up -d --wait db && docker compose run --rm probe && docker-compose down")
	log, err := shared.client.DockerLogs(t.Context(), sandbox.ID)
	if err != nil || !strings.Contains(string(log), "API listen on") {
		t.Errorf("the daemon's log is %.200q, %v", log, err)
	}
}

// The directories of an image with many layers fit into mount's options only when
// they are relative.
func TestOverlaysOfRelativeDirectories(t *testing.T) {
	t.Parallel()
	sandbox := shared.createWithDocker(t, innerdock.SandboxSpec{})
	if got := shared.sh(t, sandbox.ID, `set -e; mkdir /var/lib/docker/relative; cd /var/lib/docker/relative; mkdir a b upper work merged
echo a > a/file; echo b > b/file; echo b > b/other
python3 -c '
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"overlay", b"merged", b"overlay", 0, b"lowerdir=a:b,upperdir=upper,workdir=work"):
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))'
cat merged/file merged/other; echo new > merged/new; cat upper/new`); got != "a\nb\nnew\n" {
		t.Errorf("the overlay shows %q", got)
	}
}

// dockerd is not started again for the network of each container.
func TestASmallProgramTellsOfNetworks(t *testing.T) {
	t.Parallel()
	id := shared.createWithDocker(t, innerdock.SandboxSpec{}).ID
	got := shared.sh(t, id, `c=$(docker run -d busybox:latest sleep 1000)
grep -o '"path":"[^"]*","args":."libnetwork-setkey"' /run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/$c/config.json
docker exec $c cat /proc/net/dev | grep -c eth`)
	if got != `"path":"/.innerdock/innerdock-runc","args":["libnetwork-setkey"`+"\n1\n" {
		t.Errorf("the network of a container is made with %q", got)
	}
	if got := shared.sh(t, id, "docker info --format '{{.DefaultRuntime}} {{.RuncCommit.ID}}'"); strings.HasSuffix(strings.TrimSpace(got), "runc") {
		t.Errorf("dockerd does not find the version of its runc: %q", got)
	}
}

// Of what Docker starts for a container, runc makes it and the shim keeps it; the
// rest is done, with the same outcome, by the small program before them.
func TestFewProgramsAreStarted(t *testing.T) {
	t.Parallel()
	id := shared.createWithDocker(t, innerdock.SandboxSpec{}).ID
	got := shared.sh(t, id, `set -e
for program in /usr/sbin/runc /usr/bin/containerd-shim-runc-v2; do
	mv $program $program.real
	printf '#!/bin/sh\nverb=; for a in "$@"; do case "$a" in create|start|run|delete|kill|--version) verb=$a;; esac; done\n[ -z "$verb" ] || echo ${0##*/} $verb >> /tmp/started\nexec $0.real "$@"\n' > $program
	chmod 755 $program
done
docker run --rm busybox:latest true
docker run --rm --network host busybox:latest true
mkdir /workspace/few; printf 'FROM busybox:latest\nRUN true\n' > /workspace/few/Dockerfile
DOCKER_BUILDKIT=1 docker build -q /workspace/few > /dev/null
docker version > /dev/null
sort /tmp/started | uniq -c | tr -s ' '; find /run/docker/runtime-runc/moby /run/runc -mindepth 1 | wc -l; find /sys/fs/cgroup/memory/docker -mindepth 1 -type d -not -name buildkit | wc -l`)
	if want := " 2 containerd-shim-runc-v2 start\n 1 runc --version\n 2 runc create\n 1 runc run\n0\n0\n"; got != want {
		t.Errorf("what was started, and is left, is\n%swant\n%s", got, want)
	}
	got = shared.sh(t, id, `set -e
dir=/run/bundles/c0; mkdir -p $dir/rootfs; cd $dir; printf runc > runtime; printf 4711 > init.pid; printf '{"binary_name":"runc","root":"/run/none"}' > options.json
for program in /usr/bin/containerd-shim-runc-v2.real /run/docker/innerdock-bin/containerd-shim-runc-v2; do
	$program -namespace moby -address /run/containerd/containerd.sock -publish-binary true -id c0 -bundle $dir delete | od -An -tx1 -N9
done; grep -c delete /tmp/started || true`)
	first, rest, _ := strings.Cut(got, "\n")
	if second, count, _ := strings.Cut(rest, "\n"); first == "" || second != first || count != "1\n" { // the real shim's runc delete
		t.Errorf("a clean-up is answered, by the shim and before it, with\n%s", got)
	}
}

// Profile minimal has exactly the five flags that it promises.
func TestDockerMinimal(t *testing.T) {
	t.Parallel()
	sandbox := shared.createWithDocker(t, innerdock.SandboxSpec{Docker: innerdock.DockerSpec{Profile: innerdock.ProfileMinimal}})
	got := shared.sh(t, sandbox.ID, "tr '\\0' ' ' < /proc/$(pidof dockerd)/cmdline")
	_, flags, _ := strings.Cut(strings.TrimSpace(got), " ")
	if want := "--host=unix:///var/run/docker.sock --storage-driver=vfs --iptables=false --ip-forward=false --bridge=none"; flags != want {
		t.Errorf("dockerd runs with %q; want %q", flags, want)
	}
	if got := shared.sh(t, sandbox.ID, "docker run --rm --network host hello-world"); !strings.Contains(got, "Hello from Docker!") {
		t.Errorf("hello-world says %q", got)
	}
}

func TestDockerThatIsNotInstalled(t *testing.T) {
	t.Parallel()
	sandbox := shared.create(t, python, innerdock.SandboxSpec{Docker: innerdock.DockerSpec{Enabled: true}})
	_, err := shared.client.WaitDocker(t.Context(), sandbox.ID)
	wantCode(t, err, innerdock.CodeDockerNotInstalled,
		"dockerd not found - please install Docker in your image using Image().with_docker()")
	shared.sh(t, sandbox.ID, "true") // the sandbox itself is well
	if log, _ := shared.client.Logs(t.Context(), sandbox.ID); !strings.Contains(string(log), "dockerd not found") ||
		!strings.Contains(string(log), "container_id="+sandbox.ID) {
		t.Errorf("its log is %s", log)
	}
}

func TestDockerThatDiesSaysWhy(t *testing.T) {
	t.Parallel()
	def := innerdock.ImageDefinition{PythonVersion: "python3.11", Steps: []innerdock.ImageStep{{
		Command: `printf '#!/bin/sh\necho the disk is made of cheese >&2\nexit 3\n' > /usr/bin/dockerd && chmod +x /usr/bin/dockerd`}}}
	sandbox := shared.create(t, def, innerdock.SandboxSpec{Docker: innerdock.DockerSpec{Enabled: true}})
	_, err := shared.client.WaitDocker(t.Context(), sandbox.ID)
	wantCode(t, err, innerdock.CodeDockerFailed, "3", "the disk is made of cheese")
}

func TestDockerThatNeverAnswersTimesOut(t *testing.T) {
	t.Parallel()
	def := innerdock.ImageDefinition{PythonVersion: "python3.11", Steps: []innerdock.ImageStep{{
		Command: `printf '#!/bin/sh\nexec sleep 1000\n' > /usr/bin/dockerd && chmod +x /usr/bin/dockerd`}}}
	sandbox := shared.create(t, def, innerdock.SandboxSpec{Docker: innerdock.DockerSpec{Enabled: true, ReadyTimeout: 2}})
	_, err := shared.client.WaitDocker(t.Context(), sandbox.ID)
	wantCode(t, err, innerdock.CodeDockerTimeout, "socket", "2 s")
}

func TestDockerThatWasNotAskedFor(t *testing.T) {
	t.Parallel()
	sandbox := shared.create(t, withDocker, innerdock.SandboxSpec{})
	_, err := shared.client.WaitDocker(t.Context(), sandbox.ID)
	wantCode(t, err, innerdock.CodeDockerDisabled)
}
