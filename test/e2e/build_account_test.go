package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/innerdock/innerdock"
)

// inBuilder runs a script in the one sandbox of a server that only builds, and that
// no client of the server can reach.
func (s *server) inBuilder(t *testing.T, script string) string {
	t.Helper()
	path, err := exec.Command("../../tools/runsc/build.sh", "--path").Output()
	if err != nil {
		t.Fatal(err)
	}
	runsc := func(args ...string) string {
		output, err := exec.Command(strings.TrimSpace(string(path)), append([]string{"--root=" + filepath.Join(s.data(), "runsc")}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, output)
		}
		return string(output)
	}
	builders := strings.Fields(runsc("list", "-quiet"))
	if len(builders) != 1 {
		t.Fatalf("the builders are %q", builders)
	}
	return runsc("exec", builders[0], "/bin/sh", "-c", script)
}

// A Dockerfile's bases are pulled with the accounts that come with it: one for their
// registry, those of several by name, and by command those that docker login has
// left. They are in the builder for that build alone, and nowhere else.
func TestABuildWithAnAccount(t *testing.T) {
	t.Parallel()
	private, certificate, at := newPrivateRegistry(t)
	address := at.String()
	private.push(t, "team/base:1")
	const password = "pa55word-0f-the-registry"
	private.demand("me", password)
	me := innerdock.RegistryCredentials{Username: "me", Password: password}
	hidden := [][]byte{[]byte(password), []byte(base64.StdEncoding.EncodeToString([]byte("me:" + password)))}

	s := builds(t, "--allow", at.IP.String()+"/32")
	if _, log, err := s.dockerfile(t, "FROM busybox\nRUN true\n", nil); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	s.inBuilder(t, fmt.Sprintf("mkdir -p /etc/docker/certs.d/%[1]s && cat > /etc/docker/certs.d/%[1]s/ca.crt <<'END'\n%[2]sEND", address, certificate))
	clean := func(t *testing.T, log string) {
		t.Helper()
		left := s.inBuilder(t, "find /dev/shm/innerdock-build /var/lib/innerdock-build -mindepth 1; grep -rl 'pa55word-0f-the[-]registry' /dev/shm /tmp /root /run /etc /proc/*/cmdline /proc/*/environ 2>/dev/null; true")
		if left != "" {
			t.Errorf("the build has left in its builder\n%s", left)
		}
		for _, word := range hidden {
			for where, text := range map[string]string{"log": log, "server's log": s.log.String()} {
				if strings.Contains(text, string(word)) {
					t.Errorf("the password is in the %s", where)
				}
			}
			err := filepath.WalkDir(s.data(), func(path string, d os.DirEntry, err error) error {
				if err != nil || !d.Type().IsRegular() || strings.HasPrefix(path, filepath.Join(s.data(), "scratch")) {
					return err
				}
				if text, err := os.ReadFile(path); err == nil && bytes.Contains(text, word) {
					t.Errorf("the password is in %s", path)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
	}

	text := "FROM " + address + "/team/base:1\nCOPY one.txt /\n"
	content := map[string]string{"one.txt": "one"}
	_, _, err := s.dockerfile(t, text, content)
	wantCode(t, err, innerdock.CodeImageBuildFailed, address)
	_, _, err = s.dockerfile(t, text, content, func(def *innerdock.ImageDefinition) {
		def.Credentials = &innerdock.RegistryCredentials{Username: "me", Password: "wrong"}
	})
	wantCode(t, err, innerdock.CodeImageBuildFailed, address)
	mine := func(def *innerdock.ImageDefinition) { def.Credentials = &me }
	image, log, err := s.dockerfile(t, text, content, mine)
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	clean(t, log)
	if again, _, err := s.dockerfile(t, text, content, mine); err != nil || again.ID != image.ID || !again.Cached {
		t.Errorf("the second time: %+v, %v", again, err)
	}

	t.Run("steps go on from it", func(t *testing.T) {
		image, log, err := s.dockerfile(t, "FROM "+address+"/team/base:1 AS base\nFROM busybox\nCOPY --from=base /hello /hello\n", nil, func(def *innerdock.ImageDefinition) {
			def.Registries = map[string]innerdock.RegistryCredentials{address: me}
			def.Steps, def.User = []innerdock.ImageStep{{Command: "id -u > /who; /hello > /said"}}, "1500"
		})
		if err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		clean(t, log)
		sandbox, err := s.client.CreateSandbox(t.Context(), innerdock.SandboxSpec{Image: image.ID})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.sh(t, sandbox.ID, "cat /who; id -u; grep -c Docker! /said"); got != "0\n1500\n1\n" {
			t.Errorf("it says %q", got)
		}
		if _, err := s.client.Terminate(t.Context(), sandbox.ID); err != nil {
			t.Error(err)
		}
		archive := filepath.Join(t.TempDir(), "image.tar")
		if got := s.cli(t, nil, "image", "export", "-f", archive, image.ID); got.code != 0 {
			t.Fatalf("%+v", got)
		}
		all, err := exec.Command("sh", "-c", `mkdir "$1.d" && tar -xf "$1" -C "$1.d" && for f in "$1.d"/blobs/sha256/*; do zcat -f "$f" 2>/dev/null || true; cat "$f"; done`, "sh", archive).Output()
		if err != nil || !bytes.Contains(all, []byte("Docker!")) {
			t.Errorf("its layers cannot be looked into: %v", err)
		}
		for _, word := range hidden {
			if bytes.Contains(all, word) {
				t.Error("the password is in the image")
			}
		}
	})
	t.Run("by command", func(t *testing.T) {
		dir := t.TempDir()
		for name, content := range map[string]string{"Dockerfile": text + "LABEL by=" + filepath.Base(s.dir) + "\n", "one.txt": "two"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		build := func(stdin, auths string, flags ...string) (id, log string, err error) {
			var out, says bytes.Buffer
			cmd := s.command(t.Context(), append([]string{"image", "build", dir}, flags...)...)
			cmd.Env = append(cmd.Env, "DOCKER_CONFIG="+dir, "DOCKER_AUTH_CONFIG="+auths)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &says
			err = cmd.Run()
			return out.String(), says.String(), err
		}
		if _, log, err := build("", ""); err == nil {
			t.Errorf("without an account it was built:\n%s", log)
		}
		id, log, err := build("", fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, address, hidden[1]))
		if err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		if again, log, err := build(password+"\n", "", "--username", "me", "--password-stdin"); err != nil || again != id {
			t.Errorf("with a password the image is %s, not %s: %v\n%s", again, id, err, log)
		}
		clean(t, log)
	})
	t.Run("after a kill", func(t *testing.T) {
		begun, result := make(chan struct{}), make(chan error, 1)
		go func() {
			def := innerdock.ImageDefinition{Dockerfile: s.once("FROM " + address + "/team/base:1 AS base\nFROM busybox\nCOPY --from=base /hello /\nRUN echo begun; sleep 300\n"), Credentials: &me}
			_, err := s.client.BuildImage(context.WithoutCancel(t.Context()), def, func(event string, e innerdock.BuildEvent) {
				if event == "log" && strings.HasSuffix(e.Message, "begun") {
					close(begun)
				}
			})
			result <- err
		}()
		select {
		case <-begun:
		case err := <-result:
			t.Fatalf("it ended by itself: %v", err)
		}
		if !strings.Contains(s.inBuilder(t, "ls -A /dev/shm/innerdock-build/*"), "config.json") {
			t.Error("the account is somewhere else")
		}
		if err := s.signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-result
		if err := s.start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, log, err := s.dockerfile(t, "FROM busybox\nRUN echo after\n", nil); err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		clean(t, "")
	})
}
