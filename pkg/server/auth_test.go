package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/server"
)

// operation is one of the API's document.
type operation struct {
	method, path, id string
	public           bool
}

// operations reads them from the document, so that a new one cannot be forgotten.
func operations(t *testing.T) []operation {
	t.Helper()
	document, err := server.Document()
	if err != nil {
		t.Fatal(err)
	}
	var parsed struct {
		Paths map[string]map[string]struct {
			ID       string                `yaml:"operationId"`
			Security []map[string][]string `yaml:"security"`
		}
	}
	if err := yaml.Unmarshal(document, &parsed); err != nil {
		t.Fatal(err)
	}
	var all []operation
	for path, methods := range parsed.Paths {
		for method, op := range methods {
			public := len(op.Security) == 1 && len(op.Security[0]) == 0
			all = append(all, operation{strings.ToUpper(method), path, op.ID, public})
		}
	}
	if len(all) < 25 {
		t.Fatalf("only %d operations", len(all))
	}
	return all
}

// requestFor is a request of op that is right in form: whoever may do it gets
// an answer that depends on the state alone.
func requestFor(op operation, sandbox string) (path, body string) {
	path = strings.NewReplacer("{id}", sandbox, "{pid}", "1").Replace(op.path)
	switch {
	case strings.HasPrefix(op.path, "/v1/images/"):
		path = strings.Replace(op.path, "{id}", "sha256:0", 1)
	case strings.HasPrefix(op.path, "/v1/keys/"):
		path = "/v1/keys/0"
	case op.id == "listFiles":
		path += "?path=."
	case op.id == "makeDirectory":
		path += "?path=d"
	case strings.Contains(op.path, "/files"):
		path += "?path=f"
	case strings.HasSuffix(op.path, "/wait"):
		path += "?timeout=0"
	}
	bodies := map[string]string{
		"createSandbox": `{"image":"x"}`, "buildImage": `{"base_image":"x"}`, "findImage": `{"base_image":"x"}`, "renderImage": `{"base_image":"x"}`,
		"buildImageFrom": "--b\r\nContent-Disposition: form-data; name=definition\r\n\r\n{\"base_image\":\"x\"}\r\n--b\r\n" +
			"Content-Disposition: form-data; name=context\r\n\r\n\r\n--b--\r\n",
		"createKey":  `{}`,
		"createPool": `{"image":"x","size":1}`, "createTemplate": `{"image":"x"}`, "forkSandbox": `{}`,
		"startProcess": `{"args":["true"]}`, "signalProcess": `{"signal":"SIGTERM"}`, "seedRegistry": `{}`, "pruneRegistry": `{}`,
		"pruneImages": `{}`, "pushImage": `{"reference":"x"}`,
	}
	return path, bodies[op.id]
}

// forAnyTenant are the operations on images that are not the owner's alone.
var forAnyTenant = map[string]bool{"buildImage": true, "buildImageFrom": true, "getImage": true, "renderImage": true, "findImage": true}

// forAdmin says that no key is enough for op.
func forAdmin(op operation) bool {
	return strings.HasPrefix(op.path, "/v1/keys") || strings.HasPrefix(op.path, "/v1/registry") || strings.HasPrefix(op.path, "/v1/pools") || strings.HasPrefix(op.path, "/v1/templates")
}

// Every operation of the document, for everybody who might ask.
func TestRoutesByPrincipal(t *testing.T) {
	r := newRig(t)
	id := r.create(innerdock.SandboxSpec{Name: "mine"}).ID
	own, _ := r.key(innerdock.DefaultTenant)
	other, _ := r.key("other")
	revoked, _ := r.key(innerdock.DefaultTenant)
	keys, _ := r.keys.Keys(t.Context())
	if err := r.client.RevokeKey(t.Context(), keys[2].ID); err != nil {
		t.Fatal(err)
	}
	for _, op := range operations(t) {
		path, body := requestFor(op, id)
		send := func(key string) (*http.Response, string) {
			contentType := "application/json"
			if op.id == "buildImageFrom" {
				contentType = "multipart/form-data; boundary=b"
			}
			return r.request(op.method, path, key, strings.NewReader(body), "Content-Type", contentType)
		}
		if op.public {
			if response, text := send(""); response.StatusCode != http.StatusOK {
				t.Errorf("%s for nobody: %s %s", op.id, response.Status, text)
			}
			continue
		}
		for name, key := range map[string]string{"nobody": "", "a wrong key": "idk_wrong", "a revoked key": revoked} {
			t.Run(op.id+" for "+name, func(t *testing.T) {
				response, text := send(key)
				wantError(t, response, text, innerdock.CodeUnauthorized)
				if response.Header.Get("WWW-Authenticate") != "Bearer" {
					t.Error("no WWW-Authenticate")
				}
			})
		}
		t.Run(op.id+" for another tenant", func(t *testing.T) {
			response, text := send(other)
			switch {
			case strings.Contains(op.path, "/sandboxes/{id}"):
				wantError(t, response, text, innerdock.CodeNotFound, id)
			case forAdmin(op), strings.Contains(op.path, "/images") && !forAnyTenant[op.id]:
				wantError(t, response, text, innerdock.CodeForbidden)
			case op.id == "listSandboxes":
				if strings.Contains(text, id) {
					t.Errorf("it sees %s", text)
				}
			case response.StatusCode >= 500 || response.StatusCode == 401 || response.StatusCode == 403:
				t.Errorf("%s %s", response.Status, text)
			}
		})
		t.Run(op.id+" for its own tenant", func(t *testing.T) {
			if op.id == "terminateSandbox" {
				return // the others need it
			}
			response, text := send(own)
			if forAdmin(op) {
				wantError(t, response, text, innerdock.CodeForbidden, "local socket")
				return
			}
			if op.id == "connectDocker" || op.id == "connectPort" || op.id == "followPorts" { // they want an upgrade
				wantError(t, response, text, innerdock.CodeInvalid, "Upgrade")
				return
			}
			if response.StatusCode >= 500 || response.StatusCode == 401 || response.StatusCode == 403 ||
				strings.Contains(text, "invalid") || strings.Contains(text, "no sandbox") {
				t.Errorf("%s %s", response.Status, text)
			}
		})
	}
	if response, text := r.request("DELETE", "/v1/sandboxes/mine", own, nil); response.StatusCode != 200 {
		t.Errorf("terminate for its own tenant: %s %s", response.Status, text)
	}
}

func TestKeys(t *testing.T) {
	r := newRig(t)
	made, err := r.client.CreateKey(t.Context(), innerdock.KeySpec{Name: "ci", Tenant: "team-a"})
	if err != nil || made.Key == "" || made.Tenant != "team-a" || made.Name != "ci" {
		t.Fatalf("%+v, %v", made, err)
	}
	list, err := r.client.Keys(t.Context())
	if err != nil || len(list) != 1 || list[0].ID != made.ID {
		t.Fatalf("%+v, %v", list, err)
	}
	remote := r.connect("http://"+r.tcp, made.Key)
	if _, err := remote.Sandboxes(t.Context(), false); err != nil {
		t.Error(err)
	}
	if err := r.client.RevokeKey(t.Context(), made.ID); err != nil {
		t.Error(err)
	}
	_, err = remote.Sandboxes(t.Context(), false)
	wantCode(t, err, innerdock.CodeUnauthorized)
	if strings.Contains(r.log.String(), made.Key) {
		t.Error("the log holds a key")
	}
}

func TestBrowsers(t *testing.T) {
	r := newRig(t)
	key, _ := r.key(innerdock.DefaultTenant)
	for _, test := range []struct {
		name   string
		header []string
		code   innerdock.Code // "" is fine
	}{
		{"another site's page", []string{"Sec-Fetch-Site", "cross-site"}, innerdock.CodeForbidden},
		{"another origin", []string{"Origin", "https://evil.example"}, innerdock.CodeForbidden},
		{"this origin", []string{"Origin", "http://" + r.tcp}, ""},
		{"a rebound name", []string{"Host", "evil.example"}, innerdock.CodeForbidden},
		{"a rebound name with our port", []string{"Host", "evil.example:7070"}, innerdock.CodeForbidden},
		{"no name", []string{"Host", ""}, ""}, // the client sends the address then
		{"localhost", []string{"Host", "LocalHost:7070"}, ""},
		{"an address", []string{"Host", "[::1]:7070"}, ""},
		{"a configured name", []string{"Host", "dock.example"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			body := strings.NewReader(`{"image":"x"}`)
			response, text := r.request("POST", "/v1/sandboxes", key, body, test.header...)
			if test.code != "" {
				wantError(t, response, text, test.code)
			} else if response.StatusCode != http.StatusCreated {
				t.Errorf("%s %s", response.Status, text)
			}
		})
	}
}

func TestAuthorizationForms(t *testing.T) {
	r := newRig(t)
	key, _ := r.key(innerdock.DefaultTenant)
	for form, ok := range map[string]bool{
		"Bearer %s": true, "bearer  %s": true, "Basic %s": false, "%s": false, "Bearer": false, "Bearer %s x": false,
	} {
		value := strings.Replace(form, "%s", key, 1)
		response, text := r.request("GET", "/v1/version", "", nil, "Authorization", value)
		if ok != (response.StatusCode == http.StatusOK) {
			t.Errorf("%s: %s %s", fmt.Sprintf("%q", form), response.Status, text)
		}
	}
}
