package e2e

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
)

// Images that come with a sandbox's image are there from the start, also when the
// registry is not: in sandboxes that start cold and warm, and in those from
// snapshots and forks. What a sandbox does with them stays in it, and a sandbox's
// disk and checkpoint do not grow with them.
func TestDockerImagesInside(t *testing.T) {
	t.Parallel()
	upstream := newHub(t)
	tag := strconv.FormatInt(time.Now().UnixNano(), 36) // what an earlier run has built is no proof
	app, second := "acme/app:"+tag, "acme/second:"+tag
	upstream.push(t, app) // with 8 MiB
	upstream.push(t, second)
	server := httptest.NewServer(upstream)
	defer server.Close()
	s := ownServer(t, 247, "--registry-upstream", server.URL)
	def := innerdock.ImageDefinition{PythonVersion: "python3.11", Steps: withDocker.Steps, DockerImages: []string{app, second}}
	image := s.image(t, def)
	t.Cleanup(func() {
		if err := s.client.RemoveImage(context.WithoutCancel(t.Context()), image.ID); err != nil {
			t.Error(err)
		}
	})
	without, err := s.client.CreateTemplate(t.Context(), innerdock.TemplateSpec{Image: s.image(t, withDocker).ID})
	if err != nil {
		t.Fatal(err)
	}
	upstream.take()
	server.CloseClientConnections()
	server.Close()

	start := func() innerdock.Sandbox {
		t.Helper()
		sandbox := s.create(t, def, innerdock.SandboxSpec{Docker: innerdock.DockerSpec{Enabled: true}})
		if status, err := s.client.WaitDocker(t.Context(), sandbox.ID); err != nil || status.State != innerdock.DockerReady {
			t.Fatalf("Docker is %+v, %v", status, err)
		}
		return sandbox
	}
	greets := func(id string) {
		t.Helper()
		if got := s.sh(t, id, "docker run --rm --pull=never "+app); !strings.Contains(got, "Hello from Docker!") {
			t.Errorf("%s: the image says %q", id, got)
		}
	}
	const digests = "docker image ls --no-trunc --digests --format '{{.Repository}}:{{.Tag}} {{.Digest}} {{.ID}}' | sort"

	cold := start()
	s.wantStart(t, cold, innerdock.StartCold)
	listed := s.sh(t, cold.ID, digests)
	if lines := strings.Count(listed, "acme/"); lines != 2 || strings.Count(listed, "sha256:") != 4 {
		t.Errorf("Docker has the images\n%s", listed)
	}
	greets(cold.ID)
	s.sh(t, cold.ID, "set -e; mkdir /tmp/saved; docker save "+app+` | tar -C /tmp/saved -x
		for layer in $(docker image inspect -f '{{range .RootFS.Layers}}{{.}} {{end}}' `+app+`); do
			echo "${layer#sha256:}  /tmp/saved/blobs/sha256/${layer#sha256:}" | sha256sum -c; done`)

	template, err := s.client.CreateTemplate(t.Context(), innerdock.TemplateSpec{Image: image.ID})
	if err != nil {
		t.Fatal(err)
	}
	if grown := template.Size - without.Size; grown > 6<<20 { // a layer has 8 MiB
		t.Errorf("a template has %d bytes, and %d without images", template.Size, without.Size)
	}
	warm, other := start(), start()
	s.wantStart(t, warm, innerdock.StartWarm)
	greets(warm.ID)
	if used := s.sh(t, warm.ID, "du -sk /var/lib/docker | cut -f1"); len(used) > 5 { // 9999 and a newline
		t.Errorf("Docker's data of two images of 8 MiB takes %s KiB", used)
	}

	// One changes files of an image, commits, removes all, and prunes.
	s.sh(t, warm.ID, "set -e; app="+app+`
		docker create --name box $app && echo mine > /tmp/hello && docker cp /tmp/hello box:/hello && docker commit box acme/app:mine
		docker save $app | docker load -q
		docker rm box && docker rmi $app && docker system prune -af --volumes`)
	if left := s.sh(t, warm.ID, "docker image ls -aq; ls /var/lib/docker/overlay2/l"); left != "" {
		t.Errorf("after prune there is %q", left)
	}
	s.sh(t, warm.ID, "docker info >/dev/null && kill $(cat /var/run/docker.pid)") // which is started again, and is lent nothing
	eventually(t, func() error {
		if got := s.exec(t, warm.ID, "docker", "info", "-f", "{{.Images}} {{.ServerVersion}}"); got.code != 0 || !strings.HasPrefix(got.stdout, "0 ") {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
	if got := s.sh(t, other.ID, digests); got != listed {
		t.Errorf("another sandbox has\n%s\nand had\n%s", got, listed)
	}
	greets(other.ID)
	s.sh(t, other.ID, "docker image prune -f && docker system prune -f && docker image inspect "+app+" "+second+" >/dev/null")

	s.sh(t, other.ID, "docker create --name kept "+second)
	snapshot, err := s.client.Snapshot(t.Context(), other.ID, innerdock.SnapshotSpec{})
	if err != nil {
		t.Fatal(err)
	}
	forks, err := s.client.Fork(t.Context(), other.ID, 2)
	if err != nil {
		t.Fatal(err)
	}
	restored := s.create(t, def, innerdock.SandboxSpec{Snapshot: snapshot.ID})
	for _, sandbox := range append(forks, restored) {
		if _, err := s.client.WaitDocker(t.Context(), sandbox.ID); err != nil {
			t.Fatal(err)
		}
		greets(sandbox.ID)
		s.sh(t, sandbox.ID, "docker start -a kept | grep -q Hello && docker rm kept && docker rmi "+second)
	}
	greets(other.ID)
	s.sh(t, other.ID, "docker start -a kept | grep -q Hello")
	if asked := upstream.take(); len(asked) > 0 {
		t.Errorf("the registry was asked\n%s", strings.Join(asked, "\n"))
	}
	for _, fork := range forks {
		if _, err := s.client.Terminate(t.Context(), fork.ID); err != nil {
			t.Error(err)
		}
	}
	if err := s.client.DeleteSnapshot(t.Context(), snapshot.ID); err != nil {
		t.Error(err)
	}
}

// An image that cannot be pulled fails the build by name; an image without Docker
// has nothing to pull with.
func TestDockerImagesThatCannotBe(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(newHub(t))
	defer server.Close()
	s := ownServer(t, 248, "--registry-upstream", server.URL)
	for _, tc := range []struct {
		def  innerdock.ImageDefinition
		code innerdock.Code
		word string
	}{
		{innerdock.ImageDefinition{PythonVersion: "python3.11", Steps: withDocker.Steps, DockerImages: []string{"acme/nosuch:1"}}, innerdock.CodeImageBuildFailed, "docker pull acme/nosuch:1"},
		{innerdock.ImageDefinition{PythonVersion: "python3.11", DockerImages: []string{"acme/app:1"}}, innerdock.CodeDockerNotInstalled, "dockerd not found"},
		{innerdock.ImageDefinition{PythonVersion: "python3.11", Steps: withDocker.Steps, DockerImages: []string{"--all-tags"}}, innerdock.CodeInvalid, "docker_images"},
	} {
		_, err := s.client.BuildImage(t.Context(), tc.def, nil)
		wantCode(t, err, tc.code, tc.word)
	}
}

// What BuildKit has built gets Docker images as well, and is found again with them.
func TestDockerImagesOnADockerfile(t *testing.T) {
	t.Parallel()
	s := builds(t)
	def := innerdock.ImageDefinition{
		Dockerfile: s.once("FROM python:3.11\nRUN --mount=type=secret,id=WORD wc -c < /run/secrets/WORD > /length\n"),
		Steps:      withDocker.Steps, DockerImages: []string{"hello-world"},
		Secrets: []string{"WORD"}, Values: innerdock.SecretValues{"WORD": "12345"},
	}
	var log buildLog
	image, err := s.client.BuildImage(t.Context(), def, log.add)
	if err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	remove := func(id string) func() {
		return func() {
			if err := s.client.RemoveImage(context.WithoutCancel(t.Context()), id); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(remove(image.ID))
	if again, err := s.client.FindImage(t.Context(), def); err != nil || again.ID != image.ID || !again.Cached {
		t.Errorf("it is found as %+v, %v", again, err)
	}
	log = buildLog{}
	if again, err := s.client.BuildImage(t.Context(), def, log.add); err != nil || again.ID != image.ID || !again.Cached || log.String() != "" {
		t.Errorf("the second time it is %+v, %v\n%s", again, err, log.String())
	}
	def.DockerImages = nil
	bare, err := s.client.FindImage(t.Context(), def)
	if err != nil || bare.ID == image.ID {
		t.Errorf("without its images it is %+v, %v", bare, err)
	}
	t.Cleanup(remove(bare.ID))
	def.DockerImages = []string{"busybox"}
	if other, err := s.client.FindImage(t.Context(), def); innerdock.CodeOf(err) != innerdock.CodeImageNotFound {
		t.Errorf("with other images it is %+v, %v", other, err)
	}

	sandbox, err := s.client.CreateSandbox(t.Context(), innerdock.SandboxSpec{Image: image.ID, Docker: innerdock.DockerSpec{Enabled: true}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.WaitDocker(t.Context(), sandbox.ID); err != nil {
		t.Fatal(err)
	}
	if got := s.sh(t, sandbox.ID, "cat /length; docker run --rm --pull=never hello-world"); !strings.HasPrefix(got, "5\n") || !strings.Contains(got, "Hello from Docker!") {
		t.Errorf("it says %q", got)
	}
	if _, err := s.client.Terminate(t.Context(), sandbox.ID); err != nil {
		t.Error(err)
	}
}
