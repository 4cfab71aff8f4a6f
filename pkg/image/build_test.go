package image_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image"
	"github.com/innerdock/innerdock/pkg/image/imagetest"
)

func TestSteps(t *testing.T) {
	h := newHub(t)
	ref := h.push("app", imageOf(t, v1.Config{Env: []string{"A=base", "B=base"}, Cmd: []string{"c"}}, files{"etc/a": "1", "etc/b": "2"}))
	runner := &countingRunner{Runner: &imagetest.LocalRunner{Dir: t.TempDir()}}
	dir := t.TempDir()
	s := newStore(t, image.Config{Dir: dir, Transport: h, Runner: runner})
	def := innerdock.ImageDefinition{
		BaseImage: ref, Env: map[string]string{"B": "mine"},
		Steps: commands(`rm etc/a; printf "$A $B" > etc/env`, `printf 3 > c; echo hello`),
	}
	var events []string
	img, err := s.Build(t.Context(), def, func(event string, e innerdock.BuildEvent) {
		events = append(events, event+"|"+e.Step+"|"+e.Message)
	})
	if err != nil {
		t.Fatal(err)
	}
	wantFiles(t, s, img.ID, files{"etc/b": "2", "etc/env": "base mine", "c": "3"})
	if !maps.Equal(img.Env, map[string]string{"A": "base", "B": "mine"}) || !slices.Equal(img.Cmd, []string{"c"}) {
		t.Errorf("the image is %+v", img)
	}
	if !slices.Contains(events, "log|command 2/2|hello") {
		t.Errorf("the events are %q", events)
	}
	wantEmpty(t, dir)

	calls := h.callCount()
	again := build(t, s, def)
	if !again.Cached || again.ID != img.ID || runner.calls != 1 || h.callCount() != calls {
		t.Errorf("the second use made something: %+v, %d runs", again, runner.calls)
	}

	other := def
	other.Steps = commands(`rm etc/a; printf "$A $B" > etc/env`, `printf 4 > c; echo hello`)
	if img := build(t, s, other); img.ID == again.ID || img.Digest == again.Digest {
		t.Error("another step gave the same image")
	}

	// Without its base, an image goes on, and the base is made anew when needed.
	base := build(t, s, innerdock.ImageDefinition{BaseImage: ref})
	if err := s.Remove(t.Context(), base.ID); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, s, img.ID, files{"etc/b": "2", "etc/env": "base mine", "c": "3"})
	other.Steps = commands(`true`)
	build(t, s, other)
}

// A definition that goes on where another ends runs the steps alone that are new,
// and comes to the same files as all of them at once.
func TestMoreSteps(t *testing.T) {
	h := newHub(t)
	ref := h.push("app", imageOf(t, v1.Config{Env: []string{"A=base"}}, files{"a": "1"}))
	runner := &countingRunner{Runner: &imagetest.LocalRunner{Dir: t.TempDir()}}
	s := newStore(t, image.Config{Transport: h, Runner: runner})
	def := innerdock.ImageDefinition{BaseImage: ref, Env: map[string]string{"B": "mine"}}
	lines := []string{"printf 1 > one", "rm a; printf 2 > two", `cat one two > three; printf "$A $B" > env`, "rm one"}
	ran := func(n int) []string {
		t.Helper()
		runner.steps = nil
		def.Steps = commands(lines[:n]...)
		build(t, s, def)
		return runner.steps
	}
	if got := ran(2); !slices.Equal(got, []string{"command 1/2", "command 2/2"}) {
		t.Errorf("for two steps %q were run", got)
	}
	if got := ran(3); !slices.Equal(got, []string{"command 3/3"}) {
		t.Errorf("for a third step %q were run", got)
	}
	if got := ran(4); !slices.Equal(got, []string{"command 4/4"}) {
		t.Errorf("for a fourth step %q were run", got)
	}
	def.Steps = commands(lines...)
	more := build(t, s, def)
	wantFiles(t, s, more.ID, files{"two": "2", "three": "12", "env": "base mine"})
	history, err := s.History(t.Context(), more.ID)
	if err != nil || len(history) < 4 || !strings.Contains(history[0].CreatedBy, lines[3]) || !strings.Contains(history[3].CreatedBy, lines[0]) {
		t.Errorf("its history is %+v, %v", history, err)
	}

	// Another environment may have other results, and a changed step has.
	runner.steps = nil
	def.Env = map[string]string{"B": "other"}
	wantFiles(t, s, build(t, s, def).ID, files{"two": "2", "three": "12", "env": "base other"})
	if len(runner.steps) != 4 {
		t.Errorf("with another environment %q were run", runner.steps)
	}
	whole := newStore(t, image.Config{Transport: h})
	def.Env = map[string]string{"B": "mine"}
	wantFiles(t, whole, build(t, whole, def).ID, files{"two": "2", "three": "12", "env": "base mine"})

	// To go on, the base is not needed any more.
	dir := t.TempDir()
	alone := newStore(t, image.Config{Dir: dir, Transport: h, Runner: runner})
	def.Steps = commands(lines[:3]...)
	build(t, alone, def)
	if err := alone.Remove(t.Context(), build(t, alone, innerdock.ImageDefinition{BaseImage: ref}).ID); err != nil {
		t.Fatal(err)
	}
	calls := h.callCount()
	def.Steps = commands(lines...)
	onward := build(t, alone, def)
	wantFiles(t, alone, onward.ID, files{"two": "2", "three": "12", "env": "base mine"})
	if !maps.Equal(onward.Env, map[string]string{"A": "base", "B": "mine"}) || h.callCount() != calls {
		t.Errorf("without its base it has %v, and the registry was asked %d times", onward.Env, h.callCount()-calls)
	}

	// Where the earlier one has gone, all is run.
	gone := newStore(t, image.Config{Transport: h, Runner: runner})
	def.Steps = commands(lines[:3]...)
	if err := gone.Remove(t.Context(), build(t, gone, def).ID); err != nil {
		t.Fatal(err)
	}
	runner.steps = nil
	def.Steps = commands(lines...)
	wantFiles(t, gone, build(t, gone, def).ID, files{"two": "2", "three": "12", "env": "base mine"})
	if len(runner.steps) != 4 {
		t.Errorf("without the earlier image %q were run", runner.steps)
	}
}

func TestEnvAlone(t *testing.T) {
	h := newHub(t)
	ref := h.push("app", imageOf(t, v1.Config{}, files{"a": "1"}))
	s := newStore(t, image.Config{Transport: h})
	base := build(t, s, innerdock.ImageDefinition{BaseImage: ref})
	img := build(t, s, innerdock.ImageDefinition{BaseImage: ref, Env: map[string]string{"A": "1"}})
	if img.ID == base.ID || img.Digest != base.Digest || img.Env["A"] != "1" {
		t.Errorf("the image is %+v, its base %+v", img, base)
	}
	a, b := inode(t, s.Root(img.ID)), inode(t, s.Root(base.ID))
	if a != b {
		t.Error("an image that differs in its environment alone has a file of its own")
	}
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

func TestFailedStep(t *testing.T) {
	h := newHub(t)
	ref := h.push("app", imageOf(t, v1.Config{}, files{"a": "1"}))
	for _, tc := range []struct {
		name  string
		steps []innerdock.ImageStep
		words []string
		not   string
	}{
		{"exit code", commands("echo fine", "for i in $(seq 30); do echo line $i; done; exit 7"), []string{"command 2/2", "exit code 7", "line 30", "line 11\n"}, "line 10\n"},
		{"silent", commands("echo fine", "exit 1"), []string{"command 2/2", "exit code 1", "wrote nothing"}, "fine"},
		{"signal", commands("kill -9 $$"), []string{"command 1/1", "exit code 137"}, ""},
		{"packages", []innerdock.ImageStep{{PythonPackages: []string{"--no-such-option", "x"}}}, []string{"python packages 1/1", "exit code 2"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			s := newStore(t, image.Config{Dir: dir, Transport: h})
			_, err := s.Build(t.Context(), innerdock.ImageDefinition{BaseImage: ref, Steps: tc.steps}, nil)
			wantCode(t, err, innerdock.CodeImageBuildFailed, tc.words...)
			if tc.not != "" && strings.Contains(err.Error(), tc.not) {
				t.Errorf("%q says %q", err, tc.not)
			}
			wantEmpty(t, dir)
		})
	}
}

// TestConcurrentBuilds builds one definition many times at once, in two stores
// on one directory, as two servers would.
func TestConcurrentBuilds(t *testing.T) {
	h := newHub(t)
	ref := h.push("app", imageOf(t, v1.Config{}, files{"a": "1"}))
	runner := &countingRunner{Runner: &imagetest.LocalRunner{Dir: t.TempDir()}}
	dir := t.TempDir()
	stores := []*image.Store{
		newStore(t, image.Config{Dir: dir, Transport: h, Runner: runner}),
		newStore(t, image.Config{Dir: dir, Transport: h, Runner: runner}),
	}
	var wg sync.WaitGroup
	images := make([]innerdock.Image, 12)
	errs := make([]error, len(images))
	for i := range images {
		wg.Go(func() {
			def := innerdock.ImageDefinition{BaseImage: ref, Steps: commands("printf x > x", "sleep 0.2")}
			images[i], errs[i] = stores[i%2].Build(t.Context(), def, nil)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	made := 0
	for _, img := range images {
		if img.ID != images[0].ID {
			t.Errorf("the images are %s and %s", img.ID, images[0].ID)
		}
		if !img.Cached {
			made++
		}
	}
	if runner.calls != 1 || made != 1 {
		t.Errorf("the steps ran %d times, %d builds made something", runner.calls, made)
	}
	wantEmpty(t, dir)
}

// TestCancelledBuild gives up in the middle; a waiting build then does the work.
func TestCancelledBuild(t *testing.T) {
	h := newHub(t)
	ref := h.push("app", imageOf(t, v1.Config{}, files{"a": "1"}))
	dir := t.TempDir()
	s := newStore(t, image.Config{Dir: dir, Transport: h})
	gate := filepath.Join(t.TempDir(), "gate")
	def := innerdock.ImageDefinition{BaseImage: ref, Steps: commands(fmt.Sprintf("echo started; test -e %s || sleep 300", gate))}
	ctx, cancel := context.WithCancel(t.Context())
	started, waiting := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	var first, second error
	wg.Go(func() {
		_, first = s.Build(ctx, def, func(event string, e innerdock.BuildEvent) {
			if e.Message == "started" {
				close(started)
			}
		})
	})
	<-started
	wg.Go(func() {
		_, second = s.Build(t.Context(), def, func(event string, e innerdock.BuildEvent) {
			if strings.Contains(e.Message, "waiting") {
				close(waiting)
			}
		})
	})
	<-waiting
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cancel()
	wg.Wait()
	if !errors.Is(first, context.Canceled) || second != nil {
		t.Errorf("the first build ended with %v, the second with %v", first, second)
	}
	wantEmpty(t, dir)
}

// runnerFunc is a runner of one function.
type runnerFunc func(layer io.Writer) error

func (f runnerFunc) RunSteps(_ context.Context, _, _ string, _ map[string]string, _ []image.Step, _ func(int, string), layer io.Writer) error {
	return f(layer)
}

// TestHostileRunner has the sandbox hand over something else than a layer.
func TestHostileRunner(t *testing.T) {
	h := newHub(t)
	ref := h.push("app", imageOf(t, v1.Config{}, files{"a": "1"}))
	for name, tc := range map[string]struct {
		runner runnerFunc
		code   innerdock.Code
	}{
		"garbage": {func(w io.Writer) error {
			_, err := io.WriteString(w, strings.Repeat("garbage!", 1000))
			return err
		}, innerdock.CodeInvalid},
		"endless": {func(w io.Writer) error {
			for {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return err
				}
			}
		}, innerdock.CodeTooLarge},
		"a way out": {func(w io.Writer) error {
			_, err := w.Write(tarOf(t, files{"../../../../../x": "x"}))
			return err
		}, innerdock.CodeInvalid},
		"unavailable": {func(io.Writer) error {
			return innerdock.Errorf(innerdock.CodeExhausted, "no more addresses")
		}, innerdock.CodeExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := newStore(t, image.Config{Dir: dir, Transport: h, Runner: tc.runner, Limits: smallLimits()})
			_, err := s.Build(t.Context(), innerdock.ImageDefinition{BaseImage: ref, Steps: commands("x")}, nil)
			wantCode(t, err, tc.code)
			wantEmpty(t, dir)
		})
	}
}

// TestFullDisk runs out of room at every stage, and leaves nothing behind.
func TestFullDisk(t *testing.T) {
	h := newHub(t)
	half := strings.Repeat("x", 30<<20)
	compressible := h.push("a", imageOf(t, v1.Config{}, files{"1": half, "2": half, "3": half}))
	for name, tc := range map[string]struct {
		mib   int
		steps []innerdock.ImageStep
	}{
		"at once": {40, nil}, "in the pull": {70, nil}, "in unpacking": {100 + 60, nil},
		"in a layer": {100 + 200, commands("head -c 150000000 /dev/urandom > big")},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", tc.mib)); err != nil {
				t.Fatalf("mounting a tmpfs: %v; run the tests as root", err)
			}
			defer func() {
				if err := syscall.Unmount(dir, 0); err != nil {
					t.Error(err)
				}
			}()
			s := newStore(t, image.Config{Dir: dir, Transport: h})
			_, err := s.Build(t.Context(), innerdock.ImageDefinition{BaseImage: compressible, Steps: tc.steps}, logEvents(t))
			wantCode(t, err, innerdock.CodeExhausted, "the disk", "remove images")
			wantEmpty(t, dir)
			if blobs := len(list(t, dir, "blobs/sha256")); blobs > 3*len(list(t, dir, "images")) { // layer, configuration and manifest
				t.Errorf("%d blobs are left", blobs)
			}
		})
	}
}

// TestSweep opens a store in which a killed build has left something, and one
// that lives works.
func TestSweep(t *testing.T) {
	h := newHub(t)
	ref := h.push("app", imageOf(t, v1.Config{}, files{"a": "1"}))
	dir := t.TempDir()
	opened := 0
	s := newStore(t, image.Config{Dir: dir, Transport: h, Runner: runnerFunc(func(w io.Writer) error {
		if err := os.MkdirAll(filepath.Join(dir, "tmp", "build-dead", "tree", "x"), 0o700); err != nil {
			return err
		}
		newStore(t, image.Config{Dir: dir}) // sweeps, while this build lives
		entries, err := os.ReadDir(filepath.Join(dir, "tmp"))
		if err != nil {
			return err
		}
		opened = len(entries)
		_, err = w.Write(tarOf(t, files{"b": "2"}))
		return err
	})})
	img := build(t, s, innerdock.ImageDefinition{BaseImage: ref, Steps: commands("x")})
	wantFiles(t, s, img.ID, files{"a": "1", "b": "2"})
	if opened != 1 {
		t.Errorf("after the sweep there were %d directories, want the live one", opened)
	}
	wantEmpty(t, dir)
}

func list(t *testing.T, dir, sub string) []os.DirEntry {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, sub))
	if err != nil {
		t.Fatal(err)
	}
	return entries
}
