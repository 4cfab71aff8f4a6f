package e2e

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/test/native"
)

// Each layer is a directory of the overlay's mount. Both builders, what runs on
// the image, and an archive of it manage 45 on top of the base.
func TestImagesOfManyLayers(t *testing.T) {
	t.Parallel()
	sandbox := shared.createWithDocker(t, innerdock.SandboxSpec{CPU: 2, Memory: "2Gi"})
	sh := func(line string) string { t.Helper(); return shared.sh(t, sandbox.ID, line) }
	sh(`mkdir -p /workspace/deep && cd /workspace/deep && echo FROM busybox:latest > Dockerfile
		for i in $(seq 45); do echo $i > f$i; echo "COPY f$i /layers/$i" >> Dockerfile; done`)
	for name, builder := range map[string]string{"legacy": "0", "buildkit": "1"} {
		sh("cd /workspace/deep && DOCKER_BUILDKIT=" + builder + " docker build -q -t " + name + " .")
		sh("docker save -o /tmp/deep.tar " + name + " && docker rmi " + name + " && docker load -q -i /tmp/deep.tar")
		if got := sh("docker image inspect -f '{{len .RootFS.Layers}}' " + name); got != "46\n" {
			t.Errorf("%s: the image has %q layers", name, got)
		}
		if got := sh("docker run --rm " + name + " sh -c 'cat /layers/* | wc -l; cat /layers/1 /layers/45'"); got != "45\n1\n45\n" {
			t.Errorf("%s: in a container there is %q", name, got)
		}
	}
}

// Images that share a base share its files: what ten of them take on the host's
// disk is close to what they take with Docker on the host itself. And what is
// removed is given back to the host.
func TestImagesShareTheirBaseOnDisk(t *testing.T) {
	sandbox := shared.createWithDocker(t, innerdock.SandboxSpec{CPU: 2, Memory: "2Gi"})
	images := filepath.Join(shared.data(), "images")
	if dir := os.Getenv("INNERDOCK_IMAGES"); dir != "" {
		images = dir
	}
	docker, err := native.Start(t.Context(), native.Root(images, sandbox.Image))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := docker.Stop(); err != nil {
			t.Error(err)
		}
	}()
	base := make([]byte, 32<<20)
	rand.Read(base)
	put := func(path string, content []byte) {
		t.Helper()
		if _, err := shared.client.WriteFile(t.Context(), sandbox.ID, path, 0o644, bytes.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(docker.Path(path), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run := func(line string) {
		t.Helper()
		shared.sh(t, sandbox.ID, line)
		if err := docker.Run(t.Context(), nil, "sh", "-ec", line); err != nil {
			t.Fatal(err)
		}
	}
	sizes := func() (inside, outside int64) {
		t.Helper()
		syscall.Sync() // a file's blocks are counted when they are written
		out, err := docker.Command(t.Context(), "du", "-s", "-B1", "/var/lib/docker").Output()
		if err != nil {
			t.Fatal(err)
		}
		outside, err = strconv.ParseInt(strings.Fields(string(out))[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return allocated(t, sandbox.ID), outside
	}

	insideBefore, outsideBefore := sizes()
	put("/tmp/base", base)
	run(`mkdir -p /tmp/base.d/many /tmp/c
		i=0; while [ $i -lt 800 ]; do i=$((i+1)); head -c $((i * 40)) /tmp/base > /tmp/base.d/many/$i; done
		mv /tmp/base /tmp/base.d/large
		tar -C /tmp/base.d -c . | docker import - base`)
	for i := range 10 {
		put("/tmp/c/own", base[i<<20:(i+1)<<20])
		run(fmt.Sprintf("printf 'FROM base\\nCOPY own /own\\nLABEL number=%d\\n' > /tmp/c/Dockerfile && docker build -q -t image%d /tmp/c", i, i))
	}
	insideAfter, outsideAfter := sizes()
	inside, outside := insideAfter-insideBefore, outsideAfter-outsideBefore
	t.Logf("ten images take %.1f MB inside, %.1f MB natively: %.2f times", float64(inside)/1e6, float64(outside)/1e6, float64(inside)/float64(outside))
	if float64(inside) > 1.2*float64(outside) {
		t.Errorf("they take %d bytes inside, and %d natively", inside, outside)
	}
	shared.sh(t, sandbox.ID, "docker rmi -f $(docker images -q) && docker builder prune -af")
	if left, _ := sizes(); left-insideBefore > inside/10 {
		t.Errorf("of %d bytes, %d stay on the disk when the images are removed", inside, left-insideBefore)
	}
}

// allocated is how many bytes of the host's disk the files behind a sandbox's
// Docker data take.
func allocated(t *testing.T, id string) int64 {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(shared.data(), "sandboxes", id, "docker", ".gvisor.filestore.*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("the files behind Docker's data are %q, %v", files, err)
	}
	var stat syscall.Stat_t
	if err := syscall.Stat(files[0], &stat); err != nil {
		t.Fatal(err)
	}
	return stat.Blocks * 512
}
