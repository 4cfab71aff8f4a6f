package e2e

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/store"
)

// template returns the template of a kind of sandbox when it is ready.
func (s *server) template(t *testing.T, spec innerdock.TemplateSpec) innerdock.Template {
	t.Helper()
	spec.Image = s.image(t, withDocker).ID
	made, err := s.client.CreateTemplate(t.Context(), spec)
	if err != nil {
		t.Fatalf("%v\n%s", err, s.log)
	}
	return made
}

// wantStart checks how a sandbox was started.
func (s *server) wantStart(t *testing.T, sandbox innerdock.Sandbox, kind innerdock.StartKind, words ...string) {
	t.Helper()
	if sandbox.Start != kind {
		t.Errorf("%s was started %s; want %s\n%s", sandbox.ID, sandbox.Start, kind, s.log)
	}
	log, err := s.client.Logs(t.Context(), sandbox.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range append(words, "start="+string(kind)) {
		if !strings.Contains(string(log), word) {
			t.Errorf("the log of %s does not say %q:\n%s", sandbox.ID, word, log)
		}
	}
}

// own is what a sandbox has for itself alone, by the name of it.
const own = `echo "hostname $(hostname)"
echo "machine $(cat /etc/machine-id)"
echo "hosts $(tail -n 1 /etc/hosts)"
python3 -c '
import fcntl, random, socket, struct
def ask(request): return fcntl.ioctl(socket.socket(), request, struct.pack("256s", b"eth0"))
print("address", socket.inet_ntoa(ask(0x8915)[20:24]))
print("mac", ask(0x8927)[18:24].hex())
print("generator", random.random())'
echo "random $(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')"
echo "uuid $(cat /proc/sys/kernel/random/uuid)"`

// The first sandbox of a kind starts cold. The next ones are restored, share
// nothing that must be their own with it or with each other, and are in all else
// as they were asked for.
func TestWarmStart(t *testing.T) {
	t.Parallel()
	s := ownServer(t, 234)
	if err := s.seed(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := s.createWithDocker(t, innerdock.SandboxSpec{Name: "first", Env: map[string]string{"SECRET": "of-the-first"}, Memory: "1Gi"})
	s.wantStart(t, first, innerdock.StartCold, "no template for it yet")
	s.sh(t, first.ID, "echo of-the-first > /workspace/file; echo of-the-first > /tmp/file; docker volume create of-the-first")
	if made := s.template(t, innerdock.TemplateSpec{Memory: "1Gi"}); made.CreatedAt.Before(first.CreatedAt) || made.Profile != innerdock.ProfileFull {
		t.Errorf("the template is %+v", made)
	}

	seen := map[string]string{} // by what a sandbox has for itself
	owned := func(id string) {
		t.Helper()
		for line := range strings.Lines(s.sh(t, id, own)) {
			what, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			if value == "" {
				t.Errorf("%s has no %s", id, what)
			}
			if other, taken := seen[what+" "+value]; taken {
				t.Errorf("%s and %s both have the %s %s", id, other, what, value)
			}
			seen[what+" "+value] = id
		}
	}
	owned(first.ID)
	for i, memory := range []string{"1Gi", "1536Mi"} {
		name := fmt.Sprintf("warm-%d", i)
		sandbox := s.createWithDocker(t, innerdock.SandboxSpec{Name: name, Env: map[string]string{"MINE": name}, Memory: memory, CPU: 0.5 * float64(i+1)})
		s.wantStart(t, sandbox, innerdock.StartWarm)
		owned(sandbox.ID)
		if got := s.sh(t, sandbox.ID, "hostname; echo $MINE$SECRET; ls -A /workspace /tmp; docker volume ls -q; docker ps -aq"); got != name+"\n"+name+"\n/tmp:\n\n/workspace:\n" {
			t.Errorf("inside it is %q", got)
		}
		if got := s.sh(t, sandbox.ID, "docker run --rm hello-world && docker network create n && docker run --rm --network n hello-world"); strings.Count(got, "Hello from Docker!") != 2 {
			t.Errorf("docker says %q", got)
		}
		want, _ := innerdock.ParseQuantity("memory", memory)
		if got := memoryLimit(t, sandbox.ID); got != want+want/8 || sandbox.Memory != want {
			t.Errorf("it is killed at %d bytes of memory, and is said to have %d; want an eighth more than %d", got, sandbox.Memory, want)
		}
		// A clock that stood still since the checkpoint would be seconds behind.
		const apart = 1500 * time.Millisecond
		before := time.Now()
		says := time.UnixMicro(int64(1e6 * number(t, s.sh(t, sandbox.ID, "date +%s.%N"))))
		if after := time.Now(); says.Before(before.Add(-apart)) || says.After(after.Add(apart)) {
			t.Errorf("between %v and %v its clock says %v", before, after, says)
		}
	}

	// What dockerd would read at its start makes for a cold one.
	proxied := s.createWithDocker(t, innerdock.SandboxSpec{Env: map[string]string{"https_proxy": "http://192.0.2.1:3128"}})
	s.wantStart(t, proxied, innerdock.StartCold, "https_proxy")
}

// memoryLimit is where the host kills a sandbox, on cgroup v1 or v2.
func memoryLimit(t *testing.T, id string) int64 {
	t.Helper()
	text, err := os.ReadFile("/sys/fs/cgroup/memory/innerdock/" + id + "/memory.limit_in_bytes")
	if err != nil {
		text, err = os.ReadFile("/sys/fs/cgroup/innerdock/" + id + "/memory.max")
	}
	if err != nil {
		t.Fatal(err)
	}
	return int64(number(t, string(text)))
}

// A template that is damaged, by whatever it was, costs a cold start, which says
// so, and is made anew.
func TestADamagedTemplateIsNotUsed(t *testing.T) {
	t.Parallel()
	s := ownServer(t, 235)
	create := func(t *testing.T) innerdock.Sandbox { return s.createWithDocker(t, innerdock.SandboxSpec{}) }
	s.template(t, innerdock.TemplateSpec{})
	for name, spoil := range map[string]func(dir string) error{
		"a part is missing": func(dir string) error { return os.Remove(filepath.Join(dir, "pages_meta.img")) },
		"truncated":         func(dir string) error { return os.Truncate(filepath.Join(dir, "pages.img"), 4096) },
		"one byte differs": func(dir string) error {
			file, err := os.OpenFile(filepath.Join(dir, "checkpoint.img"), os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer file.Close()
			_, err = file.WriteAt([]byte{0xa5}, 100_000)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s.wantStart(t, create(t), innerdock.StartWarm)
			dirs, err := filepath.Glob(filepath.Join(s.data(), "templates", "*"))
			if err != nil || len(dirs) != 1 {
				t.Fatalf("templates: %q, %v", dirs, err)
			}
			if err := spoil(dirs[0]); err != nil {
				t.Fatal(err)
			}
			s.wantStart(t, create(t), innerdock.StartCold, "unusable and is discarded")
			s.template(t, innerdock.TemplateSpec{})
		})
	}
	t.Run("it cannot be restored", func(t *testing.T) { // although it is as it was written
		if err := s.signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		forge(t, s.data())
		s.log = &lockedBuffer{}
		if err := s.start(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.wantStart(t, create(t), innerdock.StartCold, "did not work and is discarded")
		s.template(t, innerdock.TemplateSpec{})
		s.wantStart(t, create(t), innerdock.StartWarm)
	})
}

// forge spoils the templates of a server that is stopped, and has its store agree.
func forge(t *testing.T, data string) {
	t.Helper()
	db, err := store.Open(t.Context(), filepath.Join(data, "innerdock.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Templates(t.Context())
	if err != nil || len(rows) == 0 {
		t.Fatalf("templates: %v, %v", rows, err)
	}
	for _, row := range rows {
		for i := range row.Files {
			content := []byte("not what a checkpoint is like")
			if err := os.WriteFile(filepath.Join(data, "templates", row.Key, row.Files[i].Name), content, 0o600); err != nil {
				t.Fatal(err)
			}
			row.Files[i].Size, row.Files[i].SHA256 = int64(len(content)), fmt.Sprintf("%x", sha256.Sum256(content))
		}
		if err := db.PutTemplate(t.Context(), row); err != nil {
			t.Fatal(err)
		}
	}
}

// A template that was made beforehand serves the first sandbox of its kind, and no
// other kind. It goes when it is removed, and with its image.
func TestTemplatesByHand(t *testing.T) {
	t.Parallel()
	s := ownServer(t, 246)
	must := func(args ...string) string {
		t.Helper()
		got := s.cli(t, nil, args...)
		if got.code != 0 {
			t.Fatalf("%q: %+v", args, got)
		}
		return strings.TrimSpace(got.stdout)
	}
	id := must("template", "make", "--memory", "1Gi", "python3.11")
	if again := must("template", "make", "--memory", "1536Mi", "python3.11"); again != id {
		t.Errorf("memory of the same power of two has the templates %s and %s", id, again)
	}
	s.wantStart(t, s.createWithDocker(t, innerdock.SandboxSpec{Memory: "1Gi"}), innerdock.StartWarm)
	s.wantStart(t, s.createWithDocker(t, innerdock.SandboxSpec{Memory: "2Gi"}), innerdock.StartCold, "no template for it yet")
	s.wantStart(t, s.create(t, python, innerdock.SandboxSpec{}), innerdock.StartCold, "without Docker")
	larger := s.template(t, innerdock.TemplateSpec{Memory: "2Gi"}) // the server makes it by itself
	list, err := s.client.Templates(t.Context())
	if err != nil || len(list) != 2 || list[0].ID != id || list[1].ID != larger.ID || list[0].Memory != 1<<30 || larger.Memory != 2<<30 {
		t.Errorf("the templates are %+v, %v", list, err)
	}
	for _, one := range list {
		if one.Size < 1<<20 || one.UsedAt.Before(one.CreatedAt) {
			t.Errorf("a template is %+v", one)
		}
	}
	if got := must("template", "ls"); !strings.Contains(got, id) || !strings.Contains(got, "2Gi") {
		t.Errorf("the list is\n%s", got)
	}

	must("template", "rm", id)
	if got := s.cli(t, nil, "template", "rm", id); got.code == 0 || !strings.Contains(got.stderr, "no template") {
		t.Errorf("removed twice: %+v", got)
	}
	s.wantStart(t, s.createWithDocker(t, innerdock.SandboxSpec{Memory: "1Gi"}), innerdock.StartCold, "no template for it yet")
	s.template(t, innerdock.TemplateSpec{Memory: "1Gi"})

	t.Run("of an image that is removed", func(t *testing.T) {
		def := withDocker
		def.Steps = append(slices.Clone(def.Steps), innerdock.ImageStep{Command: "echo passing > /mark"})
		image := s.image(t, def)
		passing, err := s.client.CreateTemplate(t.Context(), innerdock.TemplateSpec{Image: image.ID})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.client.RemoveImage(t.Context(), image.ID); err != nil {
			t.Fatal(err)
		}
		// What is made after it, in turn, is made when it is gone.
		s.template(t, innerdock.TemplateSpec{Memory: "4Gi"})
		list, err := s.client.Templates(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range list {
			if one.ID == passing.ID {
				t.Errorf("the template of a removed image is there: %+v", one)
			}
		}
	})
}

func TestWarmStartsCanBeTurnedOff(t *testing.T) {
	t.Parallel()
	s := ownServer(t, 236, "--templates", "0")
	image := s.image(t, withDocker).ID
	if _, err := s.client.CreateTemplate(t.Context(), innerdock.TemplateSpec{Image: image}); innerdock.CodeOf(err) != innerdock.CodeUnsupported || !strings.Contains(err.Error(), "--templates") {
		t.Errorf("a template was wanted: %v", err)
	}
	for range 2 {
		s.wantStart(t, s.createWithDocker(t, innerdock.SandboxSpec{}), innerdock.StartCold, "turned off")
	}
	if found, _ := filepath.Glob(filepath.Join(s.data(), "templates", "*")); len(found) > 0 {
		t.Errorf("templates: %q", found)
	}
}

// The server is killed while it makes a template and while sandboxes are restored,
// again and again. Nothing is left, and what is restored afterwards is whole.
func TestAServerKilledOverATemplate(t *testing.T) {
	t.Parallel()
	s := ownServer(t, 237)
	image := s.image(t, withDocker).ID
	spec := innerdock.SandboxSpec{Image: image, Docker: innerdock.DockerSpec{Enabled: true}}
	kill := func(after time.Duration) {
		t.Helper()
		<-time.After(after)
		if err := s.signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		s.log = &lockedBuffer{}
		if err := s.start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	end := func() {
		t.Helper()
		live, err := s.client.Sandboxes(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		for _, sandbox := range live {
			if _, err := s.client.Terminate(t.Context(), sandbox.ID); err != nil {
				t.Error(err)
			}
		}
		waitEmpty(t, s)
	}
	// A runsc that is killed between two system calls leaves its file with a name.
	if err := os.WriteFile(filepath.Join(s.data(), "scratch", "runsc-filestore-123"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 8 { // the making takes some 1.5 s from here
		if err := os.RemoveAll(filepath.Join(s.data(), "templates")); err != nil {
			t.Fatal(err)
		}
		kill(0) // it finds no template
		if _, err := s.client.CreateSandbox(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		kill(time.Duration(i) * 250 * time.Millisecond)
		end()
		found, _ := filepath.Glob(filepath.Join(s.data(), "templates", "*"))
		if len(found) > 1 {
			t.Errorf("templates: %q", found)
		}
	}
	s.template(t, innerdock.TemplateSpec{}) // the last round may have left one, or not
	for i := range 8 {
		var creating sync.WaitGroup
		for range 2 {
			creating.Go(func() { _, _ = s.client.CreateSandbox(t.Context(), spec) })
		}
		kill(time.Duration(i) * 40 * time.Millisecond)
		creating.Wait()
		end()
	}
	sandbox := s.createWithDocker(t, innerdock.SandboxSpec{})
	s.wantStart(t, sandbox, innerdock.StartWarm)
	s.sh(t, sandbox.ID, "docker ps")
}
