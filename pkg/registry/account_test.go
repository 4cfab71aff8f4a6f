package registry

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/innerdock/innerdock"
)

const alice = "alice:her secret"

// guard makes the hub ask for tokens, as Docker Hub does: everybody gets one, and
// the private repositories are read with Alice's only.
func (h *hub) guard(private ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.private, h.presented = map[string]bool{}, nil
	for _, repository := range private {
		h.private[repository] = true
	}
}

// admit answers for the guard, and for repositories that lack a blob which another
// has; false lets the registry answer.
func (h *hub) admit(w http.ResponseWriter, r *http.Request) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if value := r.Header.Get("Authorization"); value != "" {
		h.presented = append(h.presented, value)
	}
	repository, rest, blob := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/blobs/")
	if !blob {
		repository, _, _ = strings.Cut(repository, "/manifests/")
	}
	switch digest := r.URL.Query().Get("digest"); {
	case blob && r.Method == http.MethodPut:
		h.linked[repository+"@"+digest] = true
	case blob && digestForm.MatchString(rest) && !h.linked[repository+"@"+rest]:
		refuse(w, http.StatusNotFound, codeBlobUnknown, "no such blob in this repository")
		return true
	}
	if h.private == nil {
		return false
	}
	if r.URL.Path == "/token" {
		token := "anybody"
		if user, password, ok := r.BasicAuth(); ok && user+":"+password == alice {
			token = "alice"
		}
		_, _ = fmt.Fprintf(w, `{"token":%q}`, token)
		return true
	}
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if token == "alice" || (token == "anybody" && !h.private[repository]) {
		return false
	}
	w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="hub"`, r.Host))
	w.WriteHeader(http.StatusUnauthorized)
	return true
}

// saw tells whether somebody presented what contains text.
func (h *hub) saw(text string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, value := range h.presented {
		if strings.Contains(value, text) {
			return true
		}
	}
	return false
}

// wantMissing asks for path in each way that a client may, and wants no content.
func (m *mirror) wantMissing(path string) {
	m.t.Helper()
	basic := func() http.Header {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.SetBasicAuth("alice", "her secret")
		return r.Header
	}
	ways := map[string]struct {
		method string
		header http.Header
	}{
		"GET":                     {http.MethodGet, nil},
		"HEAD":                    {http.MethodHead, nil},
		"a range":                 {http.MethodGet, http.Header{"Range": {"bytes=0-10"}}},
		"with Alice's password":   {http.MethodGet, basic()},
		"with Alice's token":      {http.MethodGet, http.Header{"Authorization": {"Bearer alice"}}},
		"if it has this ETag":     {http.MethodGet, http.Header{"If-Match": {`"` + path[strings.LastIndex(path, "/")+1:] + `"`}}},
		"unless it has this ETag": {http.MethodGet, http.Header{"If-None-Match": {`"` + path[strings.LastIndex(path, "/")+1:] + `"`}}},
	}
	for way, request := range ways {
		response, body := m.get(request.method, path, request.header)
		if response.StatusCode != http.StatusNotFound || (request.method == http.MethodGet && !strings.Contains(body, "UNKNOWN")) {
			m.t.Errorf("%s %s: %s %.60q", way, path, response.Status, body)
		}
	}
}

func TestPrivateContentDoesNotComeOut(t *testing.T) {
	h := newHub(t)
	private := h.push("acme/private", "1", 10<<10)
	public := h.push("acme/public", "1", 10<<10)
	h.guard("acme/private")
	m := newMirror(t, Config{Upstreams: []string{h.server.URL}})
	m.mustPull("acme/public:1", public)
	_, layer := layerOf(t, private)
	manifest := mustDigest(t, private)
	for _, path := range []string{
		"/v2/acme/private/manifests/1", "/v2/acme/private/manifests/" + manifest, "/v2/acme/private/blobs/" + layer,
		"/v2/acme/public/manifests/" + manifest, "/v2/acme/public/blobs/" + layer,
	} {
		m.wantMissing(path)
	}
	mount := "/v2/acme/public/blobs/uploads/?mount=" + layer + "&from=acme/private"
	if response, _ := m.get(http.MethodPost, mount, nil); response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("mounting a blob of another repository: %s", response.Status)
	}
	if m.cache.store.has(layer) || m.cache.store.has(manifest) {
		t.Error("the cache holds private content")
	}
	if h.saw("alice") || h.saw("Basic ") {
		t.Errorf("a sandbox's credentials reached upstream: %q", h.presented)
	}
}

func TestADigestOpensNoOtherRepository(t *testing.T) {
	h := newHub(t)
	img := h.push("acme/one", "1", 10<<10)
	h.push("acme/two", "1", 10<<10)
	m := newMirror(t, Config{Upstreams: []string{h.server.URL}})
	m.mustPull("acme/one:1", img)
	_, layer := layerOf(t, img)
	m.wantMissing("/v2/acme/two/blobs/" + layer)
	m.wantMissing("/v2/acme/two/manifests/" + mustDigest(t, img))
	h.server.Close()
	m.wantMissing("/v2/acme/two/blobs/" + layer)
	m.mustPull("acme/one:1", img)
}

func TestARepositoryThatIsClosedUpstreamIsClosedHere(t *testing.T) {
	h := newHub(t)
	h.guard()
	img := h.push("acme/app", "1", 10<<10)
	m := newMirror(t, Config{Upstreams: []string{h.server.URL}})
	m.mustPull("acme/app:1", img)
	_, layer := layerOf(t, img)
	paths := []string{"/v2/acme/app/blobs/" + layer, "/v2/acme/app/manifests/" + mustDigest(t, img), "/v2/acme/app/manifests/1"}

	h.guard("acme/app")
	m.forgetPublic() // the time passes in which upstream's word counts
	m.wantMissing(paths[0])
	m.wantMissing(paths[2])
	for _, path := range paths {
		m.wantMissing(path)
	}
	h.server.Close()
	m.passUnreachable()
	for _, path := range paths {
		m.wantMissing(path)
	}
	m.stop()
	second := newMirror(t, Config{Dir: m.dir, Upstreams: []string{h.server.URL}})
	for _, path := range paths {
		second.wantMissing(path)
	}
}

// A refused tag makes the cache ask again at once, not after the time.
func TestARefusedTagClosesTheRepositoryAtOnce(t *testing.T) {
	h := newHub(t)
	h.guard()
	img := h.push("acme/app", "1", 10<<10)
	m := newMirror(t, Config{Upstreams: []string{h.server.URL}})
	m.mustPull("acme/app:1", img)
	h.guard("acme/app")
	m.wantMissing("/v2/acme/app/manifests/1")
	_, layer := layerOf(t, img)
	m.wantMissing("/v2/acme/app/blobs/" + layer)
	h.guard()
	m.mustPull("acme/app:1", img) // open again
	if n := h.count("GET blobs"); n != 2 {
		t.Errorf("%d blobs were downloaded, want 2: what is public again is there still", n)
	}
}

func (m *mirror) forgetPublic() {
	m.cache.publicMu.Lock()
	defer m.cache.publicMu.Unlock()
	clear(m.cache.public)
}

func TestTheOperatorsAccount(t *testing.T) {
	h := newHub(t)
	img := h.push("acme/private", "1", 300<<10)
	h.guard("acme/private")
	storage := newStorage(t, h)
	h.fail(blobsOnly(storage.redirect))
	file := filepath.Join(t.TempDir(), "config.json")
	must(t, os.WriteFile(file, []byte(`{"auths":{"http://`+h.host()+`":{"username":"alice","password":"her secret"}}}`), 0o600))
	keys, err := ReadCredentials(file)
	must(t, err)
	m := newMirror(t, Config{Upstreams: []string{h.server.URL}, Credentials: keys})
	m.mustPull("acme/private:1", img)
	if n := storage.requests.Load(); n != 1 {
		t.Errorf("the blob storage was asked %d times, want once", n)
	}
	if storage.authorized.Load() {
		t.Error("the account's token went to the blob storage")
	}
}

func TestReadCredentials(t *testing.T) {
	write := func(content string, mode os.FileMode) string {
		path := filepath.Join(t.TempDir(), "config.json")
		must(t, os.WriteFile(path, []byte(content), mode))
		return path
	}
	keys, err := ReadCredentials(write(`{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"},"reg.example:5000":{"username":"a","password":"b"}}}`, 0o600))
	must(t, err)
	for host, want := range map[string]string{"registry-1.docker.io": "u:p", "reg.example:5000": "a:b", "other.example": ":"} {
		registry, err := name.NewRegistry(host)
		must(t, err)
		auth, err := keys.Resolve(registry)
		must(t, err)
		config, err := authn.Authorization(t.Context(), auth)
		must(t, err)
		if got := config.Username + ":" + config.Password; got != want {
			t.Errorf("for %s: %q, want %q", host, got, want)
		}
	}
	for what, path := range map[string]string{
		"others may read": write(`{"auths":{"a":{"username":"u"}}}`, 0o644), "holds no registry credentials": write(`{}`, 0o600),
		"no registry credentials": write(`nonsense`, 0o600), "cannot be read": filepath.Join(t.TempDir(), "missing"),
	} {
		if _, err := ReadCredentials(path); innerdock.CodeOf(err) != innerdock.CodeInvalid || !strings.Contains(err.Error(), what) {
			t.Errorf("%v does not say %q", err, what)
		}
	}
}
