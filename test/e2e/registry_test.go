package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/registry/registrytest"
	"github.com/innerdock/innerdock/pkg/registry/seed"
)

// hub is a registry that counts what is asked of it.
type hub struct {
	handler http.Handler
	mu      sync.Mutex
	asked   []string // method and path, below a repository
	answer  int      // instead of a manifest, unless 0
	account string   // NAME:PASSWORD that is wanted, unless ""
}

func newHub(t *testing.T) *hub { return &hub{handler: registrytest.New(t)} }

func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	if strings.Contains(r.URL.Path, "/manifests/") || strings.Contains(r.URL.Path, "/blobs/") {
		h.asked = append(h.asked, r.Method+" "+r.URL.Path)
	}
	answer, account := h.answer, h.account
	h.mu.Unlock()
	if name, password, _ := r.BasicAuth(); account != "" && name+":"+password != account {
		w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if answer != 0 && strings.Contains(r.URL.Path, "/manifests/") {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(answer)
		if code := map[int]string{401: "UNAUTHORIZED", 403: "DENIED", 404: "MANIFEST_UNKNOWN", 429: "TOOMANYREQUESTS"}[answer]; code != "" {
			_, _ = fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"says the registry"}]}`, code)
		}
		return
	}
	h.handler.ServeHTTP(w, r)
}

// take returns what was asked since the last time.
func (h *hub) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	asked := h.asked
	h.asked = nil
	return asked
}

// push stores hello-world with a large layer on top, and returns that layer's digest.
func (h *hub) push(t *testing.T, reference string) string {
	t.Helper()
	server := httptest.NewServer(h)
	defer server.Close()
	img, err := seed.HelloWorld()
	if err != nil {
		t.Fatal(err)
	}
	layer, err := random.Layer(8<<20, types.DockerLayer)
	if err != nil {
		t.Fatal(err)
	}
	if img, err = mutate.AppendLayers(img, layer); err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewTag(strings.TrimPrefix(server.URL, "http://") + "/" + reference)
	if err == nil {
		err = remote.Write(ref, img)
	}
	if err != nil {
		t.Fatal(err)
	}
	h.take()
	return digestOf(t, layer)
}

func digestOf(t *testing.T, layer v1.Layer) string {
	t.Helper()
	digest, err := layer.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

// The registry cache, as two sandboxes see it: what one has pulled the other gets
// without a download; ten pulls at once are one; another registry is asked
// directly; and when the registry is gone what was pulled is there.
func TestTheRegistryCache(t *testing.T) {
	t.Parallel()
	upstream := newHub(t)
	layer := upstream.push(t, "acme/app:1")
	second := upstream.push(t, "acme/app:2")
	server := httptest.NewServer(upstream)
	defer server.Close()
	elsewhere, certificate, address := newPrivateRegistry(t)

	s := ownServer(t, 223, "--registry-upstream", server.URL)
	allow := innerdock.NetworkSpec{Allow: []string{address.IP.String() + "/32"}}
	one := s.createWithDocker(t, innerdock.SandboxSpec{Network: allow})
	two := s.createWithDocker(t, innerdock.SandboxSpec{})

	if got := s.sh(t, one.ID, "docker run --rm acme/app:1"); !strings.Contains(got, "Hello from Docker!") {
		t.Errorf("the image says %q", got)
	}
	if asked := upstream.take(); count(asked, "GET", "/blobs/"+layer) != 1 {
		t.Errorf("for the first pull upstream was asked\n%s", strings.Join(asked, "\n"))
	}
	s.sh(t, two.ID, "docker pull -q acme/app:1")
	if asked := upstream.take(); len(asked) != 1 || count(asked, "HEAD", "/acme/app/manifests/1") != 1 {
		t.Errorf("for the second pull upstream was asked\n%s\nwant one question, what the tag means", strings.Join(asked, "\n"))
	}

	t.Run("ten at once", func(t *testing.T) {
		var group sync.WaitGroup
		for _, id := range []string{one.ID, two.ID} {
			group.Go(func() { s.sh(t, id, "docker pull -q acme/app:2") })
			group.Go(func() {
				s.sh(t, id, fmt.Sprintf(`mirror=$(sed -n 's/^nameserver //p' /etc/resolv.conf):5000
for i in 1 2 3 4; do curl -sf -o /tmp/blob$i http://$mirror/v2/acme/app/blobs/%s & done
wait; for i in 1 2 3 4; do sha256sum /tmp/blob$i | grep -q ^%s || exit 1; done`, second, strings.TrimPrefix(second, "sha256:")))
			})
		}
		group.Wait()
		asked := upstream.take()
		if count(asked, "GET", "/blobs/"+second) != 1 || count(asked, "GET", "/blobs/") != 2 {
			t.Errorf("for ten pulls upstream was asked\n%s\nwant layer and configuration once", strings.Join(asked, "\n"))
		}
	})
	t.Run("another registry", func(t *testing.T) {
		elsewhere.push(t, "team/tool:1")
		before, err := s.client.RegistryUsage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.sh(t, one.ID, fmt.Sprintf("mkdir -p /etc/docker/certs.d/%[1]s && cat > /etc/docker/certs.d/%[1]s/ca.crt <<'END'\n%[2]sEND\ndocker pull -q %[1]s/team/tool:1",
			address, certificate))
		after, err := s.client.RegistryUsage(t.Context())
		if err != nil || after.Served != before.Served || count(elsewhere.take(), "GET", "/blobs/") == 0 {
			t.Errorf("the cache has served %d blobs of it, %v", after.Served-before.Served, err)
		}
	})
	t.Run("offline", func(t *testing.T) {
		server.CloseClientConnections()
		server.Close()
		s.sh(t, one.ID, "docker image prune -af && docker run --rm acme/app:2")
		got := s.exec(t, one.ID, "docker", "pull", "acme/nosuch:1")
		if got.code == 0 {
			t.Errorf("an image that is nowhere was pulled: %s", got.stdout)
		}
		t.Logf("offline, docker says: %s", got.stderr)
	})
	t.Run("by command", func(t *testing.T) {
		if got := s.cli(t, nil, "registry", "ls"); !strings.Contains(got.stdout, "acme/app:1") || !strings.Contains(got.stdout, "acme/app:2") {
			t.Errorf("registry ls: %+v", got)
		}
		if got := s.cli(t, nil, "registry", "df"); !strings.Contains(got.stdout, "unreachable") {
			t.Errorf("registry df: %+v", got)
		}
		if got := s.cli(t, nil, "registry", "prune"); !strings.Contains(got.stdout, "removed ") || got.code != 0 {
			t.Errorf("registry prune: %+v", got)
		}
		if got := s.cli(t, nil, "registry", "ls", "-q"); got.stdout != "" {
			t.Errorf("after prune, registry ls: %+v", got)
		}
	})
}

// What Docker says when a registry refuses or fails, as the guide promises it: for
// one that is asked directly, and for the one behind the cache.
func TestWhatDockerSaysOfAFailingRegistry(t *testing.T) {
	t.Parallel()
	elsewhere, certificate, address := newPrivateRegistry(t)
	elsewhere.push(t, "team/tool:1")
	upstream := newHub(t)
	upstream.push(t, "acme/app:1")
	server := httptest.NewServer(upstream)
	defer server.Close()
	s := ownServer(t, 224, "--registry-upstream", server.URL)
	one := s.createWithDocker(t, innerdock.SandboxSpec{Network: innerdock.NetworkSpec{Allow: []string{address.IP.String() + "/32"}}})
	s.sh(t, one.ID, fmt.Sprintf("mkdir -p /etc/docker/certs.d/%[1]s && cat > /etc/docker/certs.d/%[1]s/ca.crt <<'END'\n%[2]sEND", address, certificate))
	for status, words := range map[int]string{
		401: "unauthorized", 403: "denied", 404: "not found", 429: "toomanyrequests", 500: "500 Internal Server Error",
	} {
		elsewhere.fail(status)
		upstream.fail(status)
		image := address.String() + "/team/tool:1"
		pull := s.exec(t, one.ID, "docker", "pull", image)
		if pull.code == 0 || !strings.Contains(pull.stderr, words) {
			t.Errorf("%d: docker pull says %q, not %q", status, pull.stderr, words)
		}
		build := s.exec(t, one.ID, "sh", "-c", fmt.Sprintf("echo FROM %s | docker build -", image))
		if build.code == 0 || !strings.Contains(build.stderr, image) {
			t.Errorf("%d: docker build says %q", status, build.stderr)
		}
		if cached := s.exec(t, one.ID, "docker", "pull", "acme/app:1"); cached.code == 0 || cached.stderr == "" {
			t.Errorf("%d from the registry behind the cache: %+v", status, cached)
		}
		t.Logf("%d: docker pull says %s", status, pull.stderr)
	}
	log, err := s.client.DockerLogs(t.Context(), one.ID)
	for _, reason := range []string{"has no public image acme/app:1", "the limit is reached", "upstream answered 500"} {
		if err != nil || !strings.Contains(string(log), reason) {
			t.Errorf("the daemon's log does not say %q, %v", reason, err)
		}
	}
	elsewhere.fail(0)
	upstream.fail(0)
	s.sh(t, one.ID, "docker pull -q acme/app:1 && docker pull -q "+address.String()+"/team/tool:1")
}

// fail answers with a status in place of manifests; 0 is over.
func (h *hub) fail(status int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answer = status
}

// demand wants an account from now on.
func (h *hub) demand(name, password string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.account = name + ":" + password
}

// count counts the requests of a method whose path ends in, or contains, part.
func count(asked []string, method, part string) int {
	n := 0
	for _, line := range asked {
		if strings.HasPrefix(line, method+" ") && strings.Contains(line, part) {
			n++
		}
	}
	return n
}

// newPrivateRegistry is a registry on the host's own address, with a certificate
// that nobody knows.
func newPrivateRegistry(t *testing.T) (_ *hub, certificate string, _ *net.TCPAddr) {
	t.Helper()
	host := hostAddresses(t)[0]
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.ParseIP(host)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp4", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	h := newHub(t)
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: h, ReadHeaderTimeout: time.Minute},
		TLS: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	pemText := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return h, string(pemText), listener.Addr().(*net.TCPAddr)
}
