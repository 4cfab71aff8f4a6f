package image_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image"
	"github.com/innerdock/innerdock/pkg/image/imagetest"
)

// The environment of a test binary that builds an image and is killed.
const (
	crashDir   = "INNERDOCK_TEST_CRASH_DIR"
	crashRef   = "INNERDOCK_TEST_CRASH_REF"
	crashEvent = "INNERDOCK_TEST_CRASH_EVENT" // kill at the nth event; 0: never
	crashPrune = "INNERDOCK_TEST_CRASH_PRUNE" // of one that prunes, imports and exports instead: an archive
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(crashPrune) != "":
		crashingPrune()
	case os.Getenv(crashDir) != "":
		crashingBuild()
	}
	os.Exit(m.Run())
}

func crashDefinition(ref string) innerdock.ImageDefinition {
	return innerdock.ImageDefinition{BaseImage: ref, Steps: commands("echo out", "rm a; printf 2 > b")}
}

// crashingBuild builds an image and kills itself at an event.
func crashingBuild() {
	at, err := strconv.Atoi(os.Getenv(crashEvent))
	if err != nil {
		panic(err)
	}
	dir := os.Getenv(crashDir)
	store, err := image.Open(image.Config{Dir: dir, Runner: crashingRunner{&imagetest.LocalRunner{Dir: filepath.Join(dir, "..")}, at}})
	if err != nil {
		panic(err)
	}
	events := 0
	_, err = store.Build(context.Background(), crashDefinition(os.Getenv(crashRef)), func(_ string, e innerdock.BuildEvent) {
		if events++; events == at {
			fmt.Println("killed at:", e.Message)
			die()
		}
	})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// crashingRunner dies in the middle of the layer when at is -1.
type crashingRunner struct {
	image.Runner
	at int
}

func (r crashingRunner) RunSteps(ctx context.Context, tenant, root string, env map[string]string, steps []image.Step, output func(int, string), layer io.Writer) error {
	if r.at == -1 {
		if _, err := layer.Write(make([]byte, 3000)); err != nil {
			return err
		}
		die()
	}
	return r.Runner.RunSteps(ctx, tenant, root, env, steps, output, layer)
}

// TestKilledBuilds kills a build with SIGKILL at every event, in the middle of
// a layer, and at random moments; each time the next one succeeds, and nothing
// of the killed one is left or used.
func TestKilledBuilds(t *testing.T) {
	h := newHub(t)
	ref := h.push("app", imageOf(t, v1.Config{}, files{"a": "1", "c": strings.Repeat("x", 200_000)}, files{"d": "3"}))
	for at := 1; ; at++ {
		killed := false
		t.Run(fmt.Sprintf("event %d", at), func(t *testing.T) { killed = killedBuild(t, h, ref, at, 0) })
		if !killed {
			if at < 8 {
				t.Errorf("a build has only %d events", at-1)
			}
			break
		}
	}
	t.Run("in the layer", func(t *testing.T) { killedBuild(t, h, ref, -1, 0) })
	for range 10 {
		after := time.Duration(1+rand.IntN(300)) * time.Millisecond
		t.Run("after "+after.String(), func(t *testing.T) { killedBuild(t, h, ref, 0, after) })
	}
}

func killedBuild(t *testing.T, h *hub, ref string, at int, after time.Duration) (killed bool) {
	dir := filepath.Join(t.TempDir(), "store")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+dir, crashRef+"="+ref, crashEvent+"="+strconv.Itoa(at))
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if after > 0 {
		defer time.AfterFunc(after, func() { _ = cmd.Process.Kill() }).Stop() // it may have ended
	}
	err := cmd.Wait()
	t.Logf("%v: %s", err, &out)
	if err != nil && !strings.Contains(err.Error(), "killed") {
		t.Fatal("the build ended by itself")
	}
	s := newStore(t, image.Config{Dir: dir, Transport: h})
	// What the build started is killed with it, but may hold the lock a moment longer.
	for deadline := time.Now().Add(time.Minute); len(list(t, dir, "tmp")) > 0 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
		s = newStore(t, image.Config{Dir: dir, Transport: h})
	}
	wantNoWork(t, dir)
	images, lerr := s.List(t.Context())
	if lerr != nil {
		t.Fatal(lerr)
	}
	for _, img := range images {
		imagetest.Extract(t, s.Root(img.ID)) // whole
	}
	img := build(t, s, crashDefinition(ref))
	wantFiles(t, s, img.ID, files{"b": "2", "c": strings.Repeat("x", 200_000), "d": "3"})
	wantNoWork(t, dir)
	return err != nil
}

// wantNoWork fails the test if work in progress is left in the store. Locks
// that nobody holds may be.
func wantNoWork(t *testing.T, dir string) {
	t.Helper()
	if left := list(t, dir, "tmp"); len(left) > 0 {
		t.Errorf("tmp holds %v", left)
	}
}

// crashingPrune imports an image and prunes all, over and over, until it is killed.
func crashingPrune() {
	dir := os.Getenv(crashDir)
	archive, err := os.ReadFile(os.Getenv(crashPrune))
	if err != nil {
		panic(err)
	}
	store, err := image.Open(image.Config{Dir: dir})
	if err != nil {
		panic(err)
	}
	fmt.Println("begun")
	for {
		img, err := store.Import(context.Background(), bytes.NewReader(archive), nil)
		if err != nil {
			panic(err)
		}
		when := time.Now().Add(-time.Hour)
		if err := os.Chtimes(filepath.Join(dir, "images", strings.TrimPrefix(img.ID, "sha256:"), "image.json"), when, when); err != nil {
			panic(err)
		}
		if _, err := store.Prune(context.Background(), innerdock.ImagePrune{UnusedFor: 60}); err != nil {
			panic(err)
		}
	}
}

// TestKilledPrunes kills imports and prunes at random moments. An image that was
// there before and was used just now is whole each time, and so is all that is listed.
func TestKilledPrunes(t *testing.T) {
	h := newHub(t)
	dir := t.TempDir()
	s := newStore(t, image.Config{Dir: dir, Transport: h})
	shared := files{"shared": strings.Repeat("s", 100_000)}
	kept := build(t, s, innerdock.ImageDefinition{BaseImage: h.push("kept", imageOf(t, v1.Config{}, shared, files{"a": "1"}))})
	other := newStore(t, image.Config{Transport: h})
	source := build(t, other, innerdock.ImageDefinition{BaseImage: h.push("other", imageOf(t, v1.Config{}, shared, files{"b": "2"}))})
	archive := filepath.Join(t.TempDir(), "archive.tar")
	file, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(other.Export(t.Context(), source.ID, func() {}, file), file.Close()); err != nil {
		t.Fatal(err)
	}
	for range 15 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashDir+"="+dir, crashPrune+"="+archive)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "begun\n" {
			t.Fatalf("it says %q, %v", line, err)
		}
		time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond) // a random moment
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("it had ended: %v", err)
		}
		s := newStore(t, image.Config{Dir: dir, Transport: h})
		images, err := s.List(t.Context())
		if err != nil || !idsOf(images)[kept.ID] {
			t.Fatalf("the images are %v, %v", images, err)
		}
		for _, img := range images {
			imagetest.Extract(t, s.Root(img.ID))
			if err := s.Export(t.Context(), img.ID, func() {}, io.Discard); err != nil {
				t.Errorf("%s is not whole: %v", img.ID, err)
			}
		}
	}
	if _, err := s.Prune(t.Context(), innerdock.ImagePrune{Keep: 1}); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, s, kept.ID, files{"shared": shared["shared"], "a": "1"})
}
