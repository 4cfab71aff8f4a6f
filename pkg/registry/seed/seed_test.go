package seed

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/registry"
)

// cacheDir outlives the tests, so that the images are made once on a machine.
func cacheDir(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("making images from packages needs root: run the tests with sudo")
	}
	dir := os.Getenv("INNERDOCK_CACHE")
	if dir == "" {
		home, err := os.UserHomeDir()
		must(t, err)
		dir = filepath.Join(home, ".cache", "innerdock")
	}
	return filepath.Join(dir, "test", "seed")
}

func TestHelloWorld(t *testing.T) {
	img, err := HelloWorld()
	if innerdock.CodeOf(err) == innerdock.CodeUnsupported {
		t.Fatal("the program of the image is not built; run `make build`")
	}
	must(t, err)
	again, err := HelloWorld()
	must(t, err)
	if digest(t, img) != digest(t, again) {
		t.Error("made twice, it has two digests")
	}
	files := unpack(t, img)
	program := filepath.Join(t.TempDir(), "hello")
	must(t, os.WriteFile(program, []byte(files["hello"]), 0o700))
	output, err := exec.Command(program).CombinedOutput()
	must(t, err)
	if !strings.HasPrefix(string(output), "Hello from Docker!\n") {
		t.Errorf("it says:\n%s", output)
	}
}

func TestBusybox(t *testing.T) {
	img, err := Busybox(t.Context(), cacheDir(t), progress(t))
	must(t, err)
	must(t, validate.Image(img))
	files := unpack(t, img)
	for _, command := range []string{"sh", "ls", "wget", "httpd", "sleep"} {
		if files["bin/"+command] != "-> busybox" {
			t.Errorf("/bin/%s is %.20q", command, files["bin/"+command])
		}
	}
	root := writeRoot(t, img)
	output, err := exec.Command("chroot", root, "/bin/sh", "-c", "echo $((6*7)); uname -s").CombinedOutput()
	if err != nil || string(output) != "42\nLinux\n" {
		t.Errorf("%v: %s", err, output)
	}
}

func TestNginxServes(t *testing.T) {
	began := time.Now()
	img, err := Nginx(t.Context(), cacheDir(t), progress(t))
	must(t, err)
	t.Logf("made or found in %.1f s", time.Since(began).Seconds())
	config, err := img.ConfigFile()
	must(t, err)
	if config.Config.StopSignal != "SIGQUIT" || strings.Join(config.Config.Cmd, " ") != "nginx -g daemon off;" {
		t.Errorf("configuration: %+v", config.Config)
	}
	root := writeRoot(t, img)
	// A network namespace of its own gives it port 80, and it ends with the shell.
	script := `set -e
ip link set lo up
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
chroot "$1" nginx -g 'daemon off;' & server=$!
for attempt in $(seq 100); do chroot "$1" curl -s -o /dev/null http://127.0.0.1/ && break; sleep 0.1; done
chroot "$1" curl -sS http://127.0.0.1/
kill -QUIT "$server"; wait "$server"`
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh", root)
	output, err := command.CombinedOutput()
	if err != nil || !strings.Contains(string(output), "Welcome to nginx!") {
		t.Errorf("%v:\n%s", err, output)
	}
	if !strings.Contains(string(output), `"GET / HTTP/1.1" 200`) {
		t.Errorf("its log is not in the container's output:\n%s", output)
	}
}

func TestAllSeedsACacheWithoutUpstream(t *testing.T) {
	cache, err := registry.Open(registry.Config{Dir: t.TempDir(), Upstreams: []string{"http://127.0.0.1:1"}})
	must(t, err)
	defer func() { must(t, cache.Close()) }()
	must(t, All(t.Context(), cache, cacheDir(t), nil, progress(t)))
	server := httptest.NewServer(cache)
	defer server.Close()
	for _, image := range Names() {
		if !strings.Contains(image, "/") {
			image = "library/" + image
		}
		ref, err := name.ParseReference(strings.TrimPrefix(server.URL, "http://") + "/" + image + ":" + cmp.Or(tags[image], "latest"))
		must(t, err)
		img, err := remote.Image(ref)
		must(t, err)
		layers, err := img.Layers()
		must(t, err)
		for _, layer := range layers {
			content, err := layer.Compressed()
			must(t, err)
			_, err = io.Copy(io.Discard, content) // fails if it does not fit its digest
			must(t, err)
			must(t, content.Close())
		}
	}
	if err := All(t.Context(), cache, cacheDir(t), []string{"nosuch"}, nil); innerdock.CodeOf(err) != innerdock.CodeInvalid {
		t.Errorf("an unknown image: %v", err)
	}
}

func progress(t *testing.T) func(string) { return func(line string) { t.Log(line) } }

func digest(t *testing.T, img v1.Image) string {
	t.Helper()
	d, err := img.Digest()
	must(t, err)
	return d.String()
}

// unpack returns the files of an image by name; a link as "-> target".
func unpack(t *testing.T, img v1.Image) map[string]string {
	t.Helper()
	files := map[string]string{}
	content := mutate.Extract(img)
	defer func() { _ = content.Close() }()
	for tr := tar.NewReader(content); ; {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		must(t, err)
		if header.Typeflag == tar.TypeSymlink {
			files[header.Name] = "-> " + header.Linkname
			continue
		}
		body, err := io.ReadAll(tr)
		must(t, err)
		files[header.Name] = string(body)
	}
}

// writeRoot lays an image out as a directory.
func writeRoot(t *testing.T, img v1.Image) string {
	t.Helper()
	root := t.TempDir()
	must(t, os.Chmod(root, 0o755))
	layers, err := img.Layers()
	must(t, err)
	for _, layer := range layers {
		content, err := layer.Compressed()
		must(t, err)
		command := exec.Command("tar", "-xz", "-C", root)
		command.Stdin = content
		output, err := command.CombinedOutput()
		_ = content.Close()
		if err != nil {
			t.Fatalf("%v: %s", err, output)
		}
	}
	return root
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
