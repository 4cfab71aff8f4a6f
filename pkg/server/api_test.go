package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/server"
)

var update = flag.Bool("update", false, "write api/openapi.yaml")

func TestDocumentIsUpToDate(t *testing.T) {
	const path = "../../api/openapi.yaml"
	document, err := server.Document()
	if err != nil {
		t.Fatal(err)
	}
	again, _ := server.Document()
	if !bytes.Equal(document, again) {
		t.Fatal("two documents of one API differ")
	}
	if *update {
		if err := os.WriteFile(path, document, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	stored, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(document, stored) {
		t.Errorf("%s is not what the code says; run `make generate`", path)
	}
}

func TestMetadata(t *testing.T) {
	r := newRig(t)
	version, err := r.client.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := (innerdock.VersionInfo{Version: "test", Runsc: "r1", API: "v1"}); version != want {
		t.Errorf("version is %+v, want %+v", version, want)
	}
	response, body := r.request("GET", "/healthz", "", nil)
	if response.StatusCode != 200 || body != "ok" {
		t.Errorf("healthz: %s %q", response.Status, body)
	}
	for _, path := range []string{"/openapi.json", "/openapi.yaml"} {
		if response, body := r.request("GET", path, "", nil); response.StatusCode != 200 || !strings.Contains(body, "createSandbox") {
			t.Errorf("%s: %s", path, response.Status)
		}
	}
}

func TestSandboxLife(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	made := r.create(innerdock.SandboxSpec{Name: "one"})
	if made.State != innerdock.StateRunning {
		t.Fatalf("created: %+v", made)
	}
	byName, err := r.client.Sandbox(ctx, "one")
	if err != nil || byName.ID != made.ID {
		t.Fatalf("by name: %+v, %v", byName, err)
	}
	_, err = r.client.CreateSandbox(ctx, innerdock.SandboxSpec{Name: "one", Image: "x"})
	wantCode(t, err, innerdock.CodeConflict)
	if list, err := r.client.Sandboxes(ctx, false); err != nil || len(list) != 1 {
		t.Fatalf("list: %v, %v", list, err)
	}
	log, err := r.client.Logs(ctx, "one")
	if err != nil || !strings.Contains(string(log), made.ID) {
		t.Fatalf("log: %q, %v", log, err)
	}
	if paused, err := r.client.Pause(ctx, "one"); err != nil || paused.State != innerdock.StatePaused {
		t.Fatalf("paused: %+v, %v", paused, err)
	}
	if paused, err := r.client.PauseToDisk(ctx, "one"); err != nil || !paused.Persisted {
		t.Fatalf("paused to the disk: %+v, %v", paused, err)
	}
	if resumed, err := r.client.Resume(ctx, made.ID); err != nil || resumed.State != innerdock.StateRunning {
		t.Fatalf("resumed: %+v, %v", resumed, err)
	}
	waited := make(chan innerdock.Sandbox, 1)
	go func() {
		sandbox, _ := r.client.Wait(ctx, made.ID)
		waited <- sandbox
	}()
	for range 2 { // twice is fine
		ended, err := r.client.Terminate(ctx, made.ID)
		if err != nil || ended.State != innerdock.StateTerminated {
			t.Fatalf("terminate: %+v, %v", ended, err)
		}
	}
	if sandbox := <-waited; !sandbox.State.Ended() {
		t.Errorf("wait returned %+v", sandbox)
	}
	if list, err := r.client.Sandboxes(ctx, false); err != nil || list == nil || len(list) != 0 {
		t.Errorf("list after the end: %v, %v", list, err)
	}
	if list, err := r.client.Sandboxes(ctx, true); err != nil || len(list) != 1 {
		t.Errorf("list of all after the end: %v, %v", list, err)
	}
	_, err = r.client.Exec(ctx, made.ID, innerdock.ProcessSpec{Args: []string{"true"}}, innerdock.Streams{})
	wantCode(t, err, innerdock.CodeSandboxTerminated)
}

func TestDockerStatus(t *testing.T) {
	r := newRig(t)
	status := innerdock.DockerStatus{}
	r.backend.Docker = func(innerdock.SandboxSpec) innerdock.DockerStatus { return status }
	enabled := innerdock.SandboxSpec{Docker: innerdock.DockerSpec{Enabled: true}}

	_, err := r.client.WaitDocker(t.Context(), r.create(innerdock.SandboxSpec{}).ID)
	wantCode(t, err, innerdock.CodeDockerDisabled)

	status = innerdock.DockerStatus{State: innerdock.DockerReady, Version: "29.0.0"}
	if got, err := r.client.WaitDocker(t.Context(), r.create(enabled).ID); err != nil || got != status {
		t.Errorf("ready: %+v, %v", got, err)
	}
	status = innerdock.DockerStatus{State: innerdock.DockerFailed, Code: innerdock.CodeDockerNotInstalled, Reason: "dockerd not found"}
	_, err = r.client.WaitDocker(t.Context(), r.create(enabled).ID)
	wantCode(t, err, innerdock.CodeDockerNotInstalled)

	status = innerdock.DockerStatus{State: innerdock.DockerStarting}
	key, _ := r.key("default")
	response, body := r.request("GET", "/v1/sandboxes/"+r.create(enabled).ID+"/docker?wait=0.05", key, nil)
	if response.StatusCode != 200 || !strings.Contains(body, `"starting"`) {
		t.Errorf("still starting at the timeout: %s %s", response.Status, body)
	}
}

func TestImageBuild(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	var events []string
	def := innerdock.ImageDefinition{PythonVersion: "python3.11", Steps: []innerdock.ImageStep{{Command: "true"}}}
	image, err := r.client.BuildImage(ctx, def, func(name string, e innerdock.BuildEvent) {
		events = append(events, name+" "+e.Step)
	})
	if err != nil || strings.Join(events, ",") != "progress base,log step 1/1" {
		t.Fatalf("build: %v, %v", events, err)
	}
	if again, err := r.client.BuildImage(ctx, def, nil); err != nil || !again.Cached || again.ID != image.ID {
		t.Errorf("second build: %+v, %v", again, err)
	}
	if got, err := r.client.Image(ctx, image.ID); err != nil || got.ID != image.ID {
		t.Errorf("get: %+v, %v", got, err)
	}
	if list, err := r.client.Images(ctx); err != nil || len(list) != 1 {
		t.Errorf("list: %v, %v", list, err)
	}
	if found, err := r.client.FindImage(ctx, def); err != nil || found.ID != image.ID {
		t.Errorf("found %+v, %v", found, err)
	}
	if text, err := r.client.Dockerfile(ctx, def); err != nil || text != "FROM "+def.BaseImage+def.PythonVersion+"\n" {
		t.Errorf("the Dockerfile is %q, %v", text, err)
	}
	if err := r.client.RemoveImage(ctx, image.ID); err != nil {
		t.Error(err)
	}
	_, err = r.client.FindImage(ctx, def)
	wantCode(t, err, innerdock.CodeImageNotFound)
	_, err = r.client.Image(ctx, image.ID)
	wantCode(t, err, innerdock.CodeImageNotFound)

	_, err = r.client.BuildImage(ctx, innerdock.ImageDefinition{BaseImage: "broken:latest"}, nil)
	wantCode(t, err, innerdock.CodeImageBuildFailed)
	key, _ := r.key("default")
	response, body := r.request("POST", "/v1/images", key, strings.NewReader(`{"base_image":"missing:latest"}`))
	wantError(t, response, body, innerdock.CodeImageNotFound) // plain: nothing had happened
}

func TestImageTransfers(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	image, err := r.client.BuildImage(ctx, innerdock.ImageDefinition{BaseImage: "debian:bookworm"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if layers, err := r.client.ImageHistory(ctx, image.ID); err != nil || len(layers) != 1 || layers[0].CreatedBy == "" {
		t.Errorf("history: %+v, %v", layers, err)
	}
	var events []string
	pushed, err := r.client.PushImage(ctx, image.ID, innerdock.ImagePush{Reference: "r/x:1"}, func(name string, e innerdock.BuildEvent) {
		events = append(events, name+" "+e.Message)
	})
	if err != nil || pushed.ID != image.ID || strings.Join(events, ",") != "progress pushed r/x:1" {
		t.Errorf("push: %+v, %q, %v", pushed, events, err)
	}
	_, err = r.client.PushImage(ctx, image.ID, innerdock.ImagePush{}, nil)
	wantCode(t, err, innerdock.CodeInvalid)
	archive, err := r.client.ExportImage(ctx, image.ID)
	if err != nil {
		t.Fatal(err)
	}
	again, err := r.client.ImportImage(ctx, archive)
	if err != nil || again.ID != image.ID {
		t.Errorf("what was exported is imported as %+v, %v", again, err)
	}
	archive.Close()
	for _, keep := range []int64{1, 0} {
		pruned, err := r.client.PruneImages(ctx, innerdock.ImagePrune{Keep: keep})
		if err != nil || len(pruned.Images) != 1-int(keep) {
			t.Errorf("pruned to %d bytes: %+v, %v", keep, pruned, err)
		}
	}
	_, err = r.client.ExportImage(ctx, image.ID)
	wantCode(t, err, innerdock.CodeImageNotFound)
}

func TestBuildEndsWithItsClient(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := r.client.BuildImage(ctx, innerdock.ImageDefinition{BaseImage: "slow:latest"}, func(string, innerdock.BuildEvent) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the client got %v", err)
	}
	<-r.images.Stopped
}

// Files come as they are read, and may be more than a JSON body.
func TestBuildFromFiles(t *testing.T) {
	r := newRig(t)
	key, _ := r.key(innerdock.DefaultTenant)
	def := innerdock.ImageDefinition{BaseImage: "debian:bookworm"}
	var events []string
	image, err := r.client.BuildImageFrom(t.Context(), def, io.LimitReader(zeros{}, 40<<20), func(name string, e innerdock.BuildEvent) {
		events = append(events, name+" "+e.Message)
	})
	if err != nil || image.Base != def.BaseImage || len(events) == 0 || events[0] != "progress 41943040 bytes for default" {
		t.Errorf("%+v, %q, %v", image, events, err)
	}
	broken := errors.New("the disk is gone")
	_, err = r.client.BuildImageFrom(t.Context(), innerdock.ImageDefinition{BaseImage: "other"}, io.MultiReader(strings.NewReader("half"), failing{broken}), nil)
	if err == nil {
		t.Error("half of the files made an image")
	}
	for body, want := range map[string]string{
		"":             `"" where definition belongs`,
		"name=context": `"context" where definition belongs`,
		"name=definition\r\n\r\n{\"base\":1}\r\n--b--": "cannot be read",
		"name=definition\r\n\r\n{}\r\n--b--":           "lacks the part context",
	} {
		response, text := r.request(http.MethodPost, "/v1/images/build", key, strings.NewReader("--b\r\nContent-Disposition: form-data; "+body+"\r\n\r\n"), "Content-Type", "multipart/form-data; boundary=b")
		wantError(t, response, text, innerdock.CodeInvalid, want)
	}
	if err := r.client.EndBuilder(t.Context()); err != nil || !slices.Equal(r.images.Ended, []string{innerdock.DefaultTenant}) {
		t.Errorf("the builders of %q were ended, %v", r.images.Ended, err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// A client that leaves before it hears of its sandbox leaves none behind.
func TestCreateForNobody(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	r.backend.OnCreate(func(request context.Context) {
		cancel()
		<-request.Done() // the server has heard that the client has left
	})
	_, err := r.client.CreateSandbox(ctx, innerdock.SandboxSpec{Image: "x"})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("the client got %v", err)
	}
	eventually(t, "the sandbox is terminated", func() bool { return r.backend.Live() == 0 })
}

// One that leaves while the reply is on its way is told nothing, and the server cannot
// know that.
func TestCreateForOneWhoLeavesAtTheLastMoment(t *testing.T) {
	r := newRig(t)
	kept := r.create(innerdock.SandboxSpec{})
	ctx, cancel := context.WithCancel(t.Context())
	_, err := r.connect("unix://"+swallowFirst(t, r.socket, cancel), "").CreateSandbox(ctx, innerdock.SandboxSpec{Image: "x"})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("the client got %v", err)
	}
	all, err := r.client.Sandboxes(t.Context(), true)
	if err != nil || len(all) != 2 {
		t.Fatalf("there are %+v, %v", all, err)
	}
	for _, sandbox := range all {
		if sandbox.State.Ended() == (sandbox.ID == kept.ID) {
			t.Errorf("sandbox %s of request %s is %s", sandbox.ID, sandbox.RequestID, sandbox.State)
		}
	}
}

// swallowFirst listens before a server's socket. Of the first connection it passes
// only the request, and calls swallowed when the reply comes.
func swallowFirst(t *testing.T, socket string, swallowed func()) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "front.sock")
	front, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var passing sync.WaitGroup
	passing.Go(func() {
		for first := true; ; first = false {
			client, err := front.Accept()
			if err != nil {
				return
			}
			behind, err := net.Dial("unix", socket)
			if err != nil {
				t.Error(err)
				return
			}
			passing.Go(func() { _, _ = io.Copy(behind, client); _ = behind.Close() })
			passing.Go(func() {
				if first {
					_, _ = behind.Read(make([]byte, 1))
					swallowed()
				} else {
					_, _ = io.Copy(client, behind)
				}
				_ = client.Close()
			})
		}
	})
	t.Cleanup(func() { _ = front.Close(); passing.Wait() })
	return path
}

// A request is called what its client calls it, unless that is no name.
func TestRequestIDs(t *testing.T) {
	r := newRig(t)
	key, _ := r.key("default")
	for sent, taken := range map[string]bool{
		"build-7.a_B": true, strings.Repeat("x", 64): true, strings.Repeat("x", 65): false, "a b": false, "é": false, "": false,
	} {
		response, body := r.request("POST", "/v1/sandboxes", key, strings.NewReader(`{"image":"x"}`), innerdock.RequestIDHeader, sent)
		sandbox := innerdock.Sandbox{}
		if err := json.Unmarshal([]byte(body), &sandbox); err != nil {
			t.Fatal(err)
		}
		got := response.Header.Get(innerdock.RequestIDHeader)
		if got == "" || got != sandbox.RequestID || (got == sent) != taken {
			t.Errorf("a request that calls itself %q is %q in its reply and %q in its sandbox", sent, got, sandbox.RequestID)
		}
	}
}

func TestBadRequests(t *testing.T) {
	r := newRig(t)
	key, _ := r.key("default")
	id := r.create(innerdock.SandboxSpec{}).ID
	big := `{"image":"` + strings.Repeat("x", 16<<20) + `"}` // no buffer of a connection holds it
	for _, test := range []struct {
		name, method, path, body string
		code                     innerdock.Code
		words                    string
	}{
		{"no body", "POST", "/v1/sandboxes", "", innerdock.CodeInvalid, "body"},
		{"no JSON", "POST", "/v1/sandboxes", "{", innerdock.CodeInvalid, "body"},
		{"missing image", "POST", "/v1/sandboxes", "{}", innerdock.CodeInvalid, "image"},
		{"wrong type", "POST", "/v1/sandboxes", `{"image":"x","cpu":"two"}`, innerdock.CodeInvalid, "cpu: expected number"},
		{"unknown field", "POST", "/v1/sandboxes", `{"image":"x","docker_enabled":true}`, innerdock.CodeInvalid, "docker_enabled"},
		{"wrong enum", "POST", "/v1/sandboxes", `{"image":"x","docker":{"profile":"huge"}}`, innerdock.CodeInvalid, "docker.profile"},
		{"gpu", "POST", "/v1/sandboxes", `{"image":"x","gpu":"A100"}`, innerdock.CodeUnsupported, "GPU"},
		{"too large", "POST", "/v1/sandboxes", big, innerdock.CodeTooLarge, "1048576"},
		{"too large for an agent", "POST", "/v1/sandboxes/" + id + "/processes", strings.Repeat(" ", 5<<20), innerdock.CodeTooLarge, "4194304"},
		{"unknown parameter", "GET", "/v1/sandboxes?al=true", "", innerdock.CodeInvalid, "al: unknown"},
		{"wrong parameter", "GET", "/v1/sandboxes/" + id + "/wait?timeout=61", "", innerdock.CodeInvalid, "timeout"},
		{"unknown parameter for an agent", "GET", "/v1/sandboxes/" + id + "/processes?x=1", "", innerdock.CodeInvalid, "x: unknown"},
		{"no path", "GET", "/v1/sandboxes/" + id + "/files/content", "", innerdock.CodeInvalid, "path: required"},
		{"no pid", "GET", "/v1/sandboxes/" + id + "/processes/..%2fhealth", "", innerdock.CodeNotFound, ""},
		{"negative pid", "GET", "/v1/sandboxes/" + id + "/processes/-1", "", innerdock.CodeInvalid, "pid"},
		{"unknown process", "GET", "/v1/sandboxes/" + id + "/processes/999999", "", innerdock.CodeNotFound, "999999"},
		{"no command", "POST", "/v1/sandboxes/" + id + "/processes", `{"args":["no-such-thing"]}`, innerdock.CodeCommandNotFound, "no-such-thing"},
		{"no directory", "POST", "/v1/sandboxes/" + id + "/processes", `{"args":["true"],"cwd":"/nowhere"}`, innerdock.CodeInvalid, "/nowhere"},
		{"unknown sandbox", "GET", "/v1/sandboxes/nosuch", "", innerdock.CodeNotFound, "nosuch"},
		{"process in an unknown sandbox", "GET", "/v1/sandboxes/nosuch/processes", "", innerdock.CodeNotFound, "nosuch"},
		{"no such path", "GET", "/v1/nothing", "", innerdock.CodeNotFound, "openapi.yaml"},
		{"path to clean", "GET", "/v1//sandboxes", "", innerdock.CodeNotFound, ""},
		{"dots", "GET", "/v1/sandboxes/../version", "", innerdock.CodeNotFound, ""},
		{"internal path of the agent", "GET", "/v1/sandboxes/" + id + "/health", "", innerdock.CodeNotFound, ""},
		{"internal action of the agent", "POST", "/v1/sandboxes/" + id + "/configure", "{}", innerdock.CodeNotFound, ""},
		{"bad tenant", "POST", "/v1/keys", `{"tenant":"../x"}`, innerdock.CodeInvalid, "tenant"},
	} {
		t.Run(test.name, func(t *testing.T) {
			response, body := r.request(test.method, test.path, key, strings.NewReader(test.body))
			wantError(t, response, body, test.code, test.words)
		})
	}
}

func TestWrongMethod(t *testing.T) {
	r := newRig(t)
	key, _ := r.key("default")
	response, body := r.request("PATCH", "/v1/sandboxes", key, nil)
	if response.StatusCode != http.StatusMethodNotAllowed || !strings.Contains(body, `"invalid"`) || response.Header.Get("Allow") == "" {
		t.Errorf("%s %q, Allow: %q", response.Status, body, response.Header.Get("Allow"))
	}
}
