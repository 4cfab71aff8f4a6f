package imagetest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/innerdock/innerdock/pkg/image"
)

// RunnerConformance checks, on Debian bookworm, that a runner does what
// image.Runner promises.
func RunnerConformance(t *testing.T, runner image.Runner) {
	store, img := Debian(t)
	RunnerConformanceOn(t, runner, store.Root(img.ID))
}

// RunnerConformanceOn does the same on another root, an EROFS file with the
// content of SmallRoot at least. Steps use paths relative to "/".
func RunnerConformanceOn(t *testing.T, runner image.Runner, root string) {
	c := conformance{runner: runner, root: root}
	t.Run("changes", c.changes)
	t.Run("no change", c.noChange)
	t.Run("output", c.output)
	t.Run("environment", c.environment)
	t.Run("failures", c.failures)
	t.Run("cancel", c.cancel)
}

type conformance struct {
	runner image.Runner
	root   string
}

// sh makes steps of commands.
func sh(commands ...string) []image.Step {
	var steps []image.Step
	for i, c := range commands {
		steps = append(steps, image.Step{Name: fmt.Sprintf("command %d/%d", i+1, len(commands)), Args: []string{"/bin/sh", "-c", c}})
	}
	return steps
}

var stepEnv = map[string]string{"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}

func (c conformance) run(t *testing.T, output func(int, string), commands ...string) ([]byte, error) {
	t.Helper()
	if output == nil {
		output = func(step int, line string) { t.Logf("step %d: %s", step, line) }
	}
	var layer bytes.Buffer
	err := c.runner.RunSteps(t.Context(), "", c.root, stepEnv, sh(commands...), output, &layer)
	return layer.Bytes(), err
}

// apply returns the root with a layer over it.
func (c conformance) apply(t *testing.T, layer []byte) string {
	t.Helper()
	var base bytes.Buffer
	tw := tar.NewWriter(&base)
	tree := Extract(t, c.root)
	if err := errors.Join(writeTree(tw, tree), tw.Close()); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "root.erofs")
	MakeRoot(t, root, base.Bytes(), layer)
	return Extract(t, root)
}

func (c conformance) changes(t *testing.T) {
	layer, err := c.run(t, nil,
		`set -e
		rm etc/issue
		rm -r etc/cron.daily usr/share/common-licenses
		rm -r etc/apt; mkdir etc/apt; echo only > etc/apt/only
		rm etc/issue.net; mkdir etc/issue.net; echo in > etc/issue.net/file
		rm -r usr/share/base-files; echo file > usr/share/base-files
		mv etc/skel etc/skel2`,
		`set -e
		mkdir -p "opt/a b/ü"; printf 'zwölf' > "opt/a b/ü/f"
		ln -s ../nowhere opt/dangling; ln -s /etc/passwd opt/absolute
		echo one > opt/one; ln opt/one opt/two
		chmod 4755 opt/one; chown 1234:5678 "opt/a b"
		chmod 1777 srv; echo more >> etc/debian_version; : > opt/empty
		mkfifo opt/fifo; : > opt/.wh.innocent
		head -c 3000000 /dev/zero > opt/zeros
		touch -d @1000000000 opt/old`,
		`echo x >> etc/hosts; echo x > etc/resolv.conf; echo x > etc/hostname; echo x > etc/machine-id; mkdir -p run/innerdock var/lib/docker; echo x > var/lib/docker/x || true`)
	if err != nil {
		t.Fatal(err)
	}
	tree := c.apply(t, layer)
	for _, gone := range []string{"etc/issue", "etc/cron.daily", "usr/share/common-licenses", "etc/apt/sources.list", "etc/skel",
		"usr/share/base-files/profile", "opt/fifo", "var/lib/docker/x", "etc/resolv.conf", "etc/hostname", "etc/machine-id"} {
		if _, err := os.Lstat(filepath.Join(tree, gone)); err == nil {
			t.Errorf("%s is still there", gone)
		}
	}
	for path, want := range map[string]string{
		"etc/apt/only": "only\n", "etc/issue.net/file": "in\n", "usr/share/base-files": "file\n", "opt/a b/ü/f": "zwölf",
		"opt/one": "one\n", "opt/two": "one\n", "opt/empty": "", "opt/zeros": strings.Repeat("\x00", 3000000),
	} {
		if got, err := os.ReadFile(filepath.Join(tree, path)); err != nil || string(got) != want {
			t.Errorf("%s holds %.40q, %v; want %.40q", path, got, err, want)
		}
	}
	c.metadata(t, tree)
}

func (c conformance) metadata(t *testing.T, tree string) {
	if got, err := os.ReadFile(filepath.Join(tree, "etc/debian_version")); err != nil || !strings.HasSuffix(string(got), "\nmore\n") {
		t.Errorf("etc/debian_version is %q, %v: a file that was appended to is not whole", got, err)
	}
	if _, err := os.Stat(filepath.Join(tree, "etc/skel2/.bashrc")); err != nil {
		t.Errorf("a renamed directory lost its content: %v", err)
	}
	for path, want := range map[string]string{"opt/dangling": "../nowhere", "opt/absolute": "/etc/passwd"} {
		if got, err := os.Readlink(filepath.Join(tree, path)); err != nil || got != want {
			t.Errorf("%s leads to %q, %v; want %q", path, got, err, want)
		}
	}
	one, two, owned, old := stat(t, tree, "opt/one"), stat(t, tree, "opt/two"), stat(t, tree, "opt/a b"), stat(t, tree, "opt/old")
	if one.Ino != two.Ino {
		t.Error("two names of one file became two files")
	}
	if one.Mode&0o7777 != 0o4755 {
		t.Errorf("the mode of opt/one is %o", one.Mode&0o7777)
	}
	if mode := stat(t, tree, "srv").Mode & 0o7777; mode != 0o1777 {
		t.Errorf("the mode of srv is %o", mode)
	}
	if owned.Uid != 1234 || owned.Gid != 5678 {
		t.Errorf("opt/a b belongs to %d:%d", owned.Uid, owned.Gid)
	}
	if old.Mtim.Sec != 1000000000 {
		t.Errorf("the time of opt/old is %d", old.Mtim.Sec)
	}
}

func stat(t *testing.T, tree, path string) *syscall.Stat_t {
	t.Helper()
	info, err := os.Lstat(filepath.Join(tree, path))
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t)
}

func (c conformance) noChange(t *testing.T) {
	layer, err := c.run(t, nil, "true")
	if err != nil {
		t.Fatal(err)
	}
	before, after := listing(t, Extract(t, c.root)), listing(t, c.apply(t, layer))
	for path := range before {
		if !after[path] {
			t.Errorf("%s is gone", path)
		}
	}
	for path := range after {
		// Mount points and the working directory of a sandbox may appear, empty.
		if !before[path] && !strings.HasPrefix(path, "/run") && path != "/workspace" {
			t.Errorf("%s appeared", path)
		}
	}
}

func listing(t *testing.T, tree string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	err := filepath.WalkDir(tree, func(path string, _ os.DirEntry, err error) error {
		names[strings.TrimPrefix(path, tree)] = true
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func (c conformance) output(t *testing.T) {
	var got []string
	collect := func(step int, line string) { got = append(got, fmt.Sprintf("%d %s", step, line)) }
	_, err := c.run(t, collect,
		`echo first; echo second >&2; printf 'no newline'`,
		`cat; echo after stdin; printf '\n'`,
		`head -c 100000 /dev/zero | tr '\0' x; echo; echo done`)
	if err != nil {
		t.Fatal(err)
	}
	all := "\n" + strings.Join(got, "\n") + "\n"
	for _, want := range []string{"\n0 first\n", "\n0 second\n", "\n0 no newline\n", "\n1 after stdin\n1 \n", "\n2 done\n"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is missing in the output", want)
		}
	}
	for _, line := range got {
		if len(line) > 4096+2 {
			t.Errorf("a line of %d bytes came through", len(line))
		}
	}
}

func (c conformance) environment(t *testing.T) {
	var got []string
	env := map[string]string{"PATH": stepEnv["PATH"], "HOME": "/root", "ODD": "a b=$c\"'\nd"}
	err := c.runner.RunSteps(t.Context(), "", c.root, env,
		sh(`printf '<%s>\n' "$ODD"`, `test -f etc/debian_version && id -u`, `export LOST=1; cd etc`, `echo "[$LOST]"; test -d etc`),
		func(step int, line string) { got = append(got, line) }, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if want := "<a b=$c\"'\nd>\n0\n[]"; strings.Join(got, "\n") != want {
		t.Errorf("the output is %q, want %q", strings.Join(got, "\n"), want)
	}
}

func (c conformance) failures(t *testing.T) {
	for _, tc := range []struct {
		name  string
		steps []image.Step
		step  int
		code  int
	}{
		{"exit code", sh("true", "echo no; exit 3", "echo never > opt/never"), 1, 3},
		{"signal", sh("kill -9 $$"), 0, 137},
		{"no program", []image.Step{{Name: "x", Args: []string{"/no/such/program"}}}, 0, 127},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var layer bytes.Buffer
			err := c.runner.RunSteps(t.Context(), "", c.root, stepEnv, tc.steps, func(int, string) {}, &layer)
			var failed *image.StepError
			if !errors.As(err, &failed) || failed.Step != tc.step || failed.ExitCode != tc.code {
				t.Errorf("the error is %v, want step %d with code %d", err, tc.step, tc.code)
			}
			if layer.Len() != 0 {
				t.Errorf("%d bytes of a layer were written", layer.Len())
			}
		})
	}
}

func (c conformance) cancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	started := func(int, string) { cancel() }
	begin := time.Now()
	err := c.runner.RunSteps(ctx, "", c.root, stepEnv, sh("echo started; sleep 300"), started, &bytes.Buffer{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v, want %v", err, context.Canceled)
	}
	if took := time.Since(begin); took > time.Minute {
		t.Errorf("it took %v to stop", took)
	}
}
