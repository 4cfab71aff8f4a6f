package registry

import (
	"fmt"

	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// limit answers 429 until open.
func limit(retryAfter string, open func() bool) fault {
	return func(w http.ResponseWriter, _ *http.Request, _ func() *httptest.ResponseRecorder) bool {
		if open() {
			return false
		}
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	}
}

// A limit that soon ends is waited for: the request comes late, and succeeds.
func TestAShortRateLimitIsWaitedFor(t *testing.T) {
	h := newHub(t)
	img := h.push("library/thing", "1", 1000)
	for name, value := range map[string]string{"seconds": "1", "a date": time.Now().Add(3 * time.Second).UTC().Format(http.TimeFormat), "nothing": ""} {
		t.Run(name, func(t *testing.T) {
			var first atomic.Int64
			early := make(chan time.Duration, 100)
			h.fail(limit(value, func() bool {
				now := time.Now().UnixNano()
				if first.CompareAndSwap(0, now) {
					return false
				}
				early <- time.Duration(now - first.Load())
				return true
			}))
			defer h.fail(nil)
			m := newMirror(t, Config{Upstreams: []string{h.server.URL}})
			m.mustPull("thing:1", img)
			if wait := <-early; wait < 900*time.Millisecond {
				t.Errorf("upstream was asked again after %v", wait)
			}
		})
	}
}

// A limit that lasts is remembered: what is stored is served, and upstream is left
// alone.
func TestALongRateLimitLeavesUpstreamAlone(t *testing.T) {
	h := newHub(t)
	img := h.push("library/thing", "1", 1000)
	m := newMirror(t, Config{Upstreams: []string{h.server.URL}})
	m.mustPull("thing:1", img)
	var asked atomic.Int64
	h.fail(limit("600", func() bool { asked.Add(1); return false }))
	for range 3 {
		m.mustPull("thing:1", img)
		response, body := m.get(http.MethodGet, "/v2/library/other/manifests/1", nil)
		if response.StatusCode != http.StatusNotFound {
			t.Errorf("an image that is not there: %s %s", response.Status, body)
		}
		wantSays(t, body, "the limit is reached", "docker login")
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("upstream was asked %d times in ten minutes of its limit", n)
	}
	if state := m.cache.Usage().Upstreams[0].State; state != "limited" {
		t.Errorf("its state is %s", state)
	}
}

func TestMirrorsAreAskedFirst(t *testing.T) {
	tests := map[string]struct {
		fault fault
		first bool // has the image
	}{
		"it has it":       {nil, true},
		"it lacks it":     {nil, false},
		"it is broken":    {broken, true},
		"it refuses":      {deny(http.StatusForbidden), true},
		"it is limited":   {limit("600", func() bool { return false }), true},
		"it cuts":         {cut, true},
		"it cuts blobs":   {blobsOnly(cut), true},
		"its blobs break": {blobsOnly(broken), true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			mirror, hub := newHub(t), newHub(t)
			img := hub.push("library/thing", "1", 100<<10)
			if test.first {
				mirror.write("library/thing", "1", img)
			}
			mirror.fail(test.fault)
			m := newMirror(t, Config{Upstreams: []string{mirror.server.URL, hub.server.URL}})
			m.mustPull("thing:1", img)
			if asked := hub.count("GET blobs") > 0; asked != (name != "it has it") {
				t.Errorf("the last one was asked for blobs: %v", asked)
			}
		})
	}
	t.Run("nobody is there", func(t *testing.T) {
		m := newMirror(t, Config{Upstreams: []string{closedPort(t), closedPort(t)}})
		_, body := m.get(http.MethodGet, "/v2/library/thing/manifests/1", nil)
		wantSays(t, body, "cannot be reached")
	})
	t.Run("the first is not there", func(t *testing.T) {
		hub := newHub(t)
		img := hub.push("library/thing", "1", 1000)
		m := newMirror(t, Config{Upstreams: []string{closedPort(t), hub.server.URL}})
		m.mustPull("thing:1", img)
		if !m.cache.Reachable(t.Context()) {
			t.Error("with one of two there, upstream cannot be reached")
		}
	})
}

// deny answers with a status.
func deny(status int) fault {
	return func(w http.ResponseWriter, _ *http.Request, _ func() *httptest.ResponseRecorder) bool {
		w.WriteHeader(status)
		return true
	}
}

// Blobs that cannot be had say why, and the cache goes on.
func TestRefusedBlobs(t *testing.T) {
	h := newHub(t)
	img := h.push("library/thing", "1", 100<<10)
	for _, status := range []int{401, 403, 404, 429, 500, 503} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			h.fail(blobsOnly(deny(status)))
			m := newMirror(t, Config{Upstreams: []string{h.server.URL}})
			_, layer := layerOf(t, img)
			response, body := m.get(http.MethodGet, "/v2/library/thing/blobs/"+layer, nil)
			if response.StatusCode != http.StatusNotFound {
				t.Errorf("%s %s", response.Status, body)
			}
			wantSays(t, body, codeBlobUnknown)
			h.fail(nil)
			m.mustPull("thing:1", img)
		})
	}
}

// Upstream keeps its blobs elsewhere, and cuts them: the rest comes from there too.
func TestARedirectedDownloadGoesOn(t *testing.T) {
	h := newHub(t)
	img := h.push("library/thing", "1", 300<<10)
	storage := newStorage(t, h)
	once := cutOnce()
	h.fail(func(w http.ResponseWriter, r *http.Request, answer func() *httptest.ResponseRecorder) bool {
		return once(w, r, answer) || blobsOnly(storage.redirect)(w, r, answer)
	})
	m := newMirror(t, Config{Upstreams: []string{h.server.URL}})
	m.mustPull("thing:1", img)
	if n := storage.requests.Load(); n != 1 {
		t.Errorf("the storage was asked %d times, want once, for the rest", n)
	}
}

func TestRedirectsThatAreNotFollowed(t *testing.T) {
	h := newHub(t)
	img := h.push("library/thing", "1", 100<<10)
	_, layer := layerOf(t, img)
	plain := newStorage(t, h)
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		http.Redirect(w, r, plain.server.URL+r.URL.Path, http.StatusFound)
	}))
	defer secure.Close()
	m := newMirror(t, Config{Upstreams: []string{secure.URL}})
	m.cache.upstream[0].transport.TLSClientConfig = secure.Client().Transport.(*http.Transport).TLSClientConfig
	_, body := m.get(http.MethodGet, "/v2/library/thing/blobs/"+layer, nil)
	wantSays(t, body, "redirects from https to http")

	h.fail(blobsOnly(func(w http.ResponseWriter, r *http.Request, _ func() *httptest.ResponseRecorder) bool {
		http.Redirect(w, r, r.URL.Path+"?again", http.StatusFound)
		return true
	}))
	loop := newMirror(t, Config{Upstreams: []string{h.server.URL}})
	_, body = loop.get(http.MethodGet, "/v2/library/thing/blobs/"+layer, nil)
	wantSays(t, body, "redirects without end")
	if plain.requests.Load() != 0 {
		t.Error("a redirect from https to http was followed")
	}
}

// Indexes of images for several platforms, layers packed by zstd and layers that
// are kept elsewhere come as they are.
func TestOtherKindsOfImages(t *testing.T) {
	h := newHub(t)
	one, err := random.Image(1000, 1)
	must(t, err)
	zstd, err := mutate.AppendLayers(one, static.NewLayer([]byte("(\xb5/\xfd pretends to be zstd"), types.OCILayerZStd))
	must(t, err)
	foreign := h.push("library/base", "1", 1000)
	foreign, err = mutate.Append(foreign, mutate.Addendum{
		Layer: static.NewLayer([]byte("elsewhere"), types.DockerForeignLayer), URLs: []string{"http://203.0.113.1/layer"}})
	must(t, err)
	h.write("library/foreign", "1", foreign)
	h.write("library/zstd", "1", zstd)
	m := newMirror(t, Config{Upstreams: []string{h.server.URL}})
	m.mustPull("zstd:1", zstd)

	raw, err := foreign.RawManifest()
	must(t, err)
	if _, body := m.get(http.MethodGet, "/v2/library/foreign/manifests/1", nil); body != string(raw) {
		t.Errorf("the manifest with a foreign layer came as %s", body)
	}

	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: one, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: zstd, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}})
	h.writeIndex("library/many", "1", index)
	raw, err = index.RawManifest()
	must(t, err)
	for range 2 {
		response, body := m.get(http.MethodGet, "/v2/library/many/manifests/1", nil)
		if body != string(raw) || response.Header.Get("Content-Type") != string(types.OCIImageIndex) {
			t.Errorf("the index came as %s, %s", response.Header.Get("Content-Type"), body)
		}
		m.mustPull("many@"+mustDigest(t, zstd), zstd)
	}
	if n := h.count("GET manifests"); n != 3 {
		t.Errorf("upstream sent %d manifests, want each of the three once", n)
	}
}

// A connection that is reset is no answer that is remembered.
func TestAResetConnectionPasses(t *testing.T) {
	h := newHub(t)
	img := h.push("library/thing", "1", 1000)
	h.fail(onlyOnce(blobsOnly(func(w http.ResponseWriter, _ *http.Request, _ func() *httptest.ResponseRecorder) bool {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			if tcp, ok := conn.(interface{ SetLinger(int) error }); ok {
				_ = tcp.SetLinger(0)
			}
			_ = conn.Close()
		}
		return true
	})))
	m := newMirror(t, Config{Upstreams: []string{h.server.URL}})
	m.mustPull("thing:1", img)
}

// An upstream that sends a byte now and then does not hold up other images.
func TestASlowBlobHoldsUpNoOther(t *testing.T) {
	h := newHub(t)
	big, small := h.push("library/big", "1", 1<<20), h.push("library/small", "1", 10)
	gate := make(chan struct{})
	h.fail(blobsOnly(slow(gate)))
	m := newMirror(t, Config{Upstreams: []string{h.server.URL}})
	ended := make(chan error, 1)
	go func() {
		_, err := m.pull("big:1")
		ended <- err
	}()
	_, layer := layerOf(t, big)
	waitFor(t, "the slow download", func() bool {
		m.cache.downloads.mu.Lock()
		defer m.cache.downloads.mu.Unlock()
		return m.cache.downloads.running[bigBlob(layer)] != nil
	})
	m.mustPull("small:1", small)
	close(gate)
	must(t, <-ended)
}

// Each pull of a stored image costs one question upstream.
func TestASecondPullAsksForTheManifestOnly(t *testing.T) {
	h := newHub(t)
	h.guard()
	img := h.push("acme/app", "1", 100<<10)
	m := newMirror(t, Config{Upstreams: []string{h.server.URL}})
	m.mustPull("acme/app:1", img)
	before := h.requests.Load()
	m.mustPull("acme/app:1", img)
	if n := h.requests.Load() - before; n != 1 || h.count("HEAD manifests") == 0 {
		t.Errorf("the second pull asked upstream %d times, want once, what the tag means", n)
	}
	m.forgetPublic()
	before = h.requests.Load()
	m.mustPull("acme/app:1", img)
	if n := h.requests.Load() - before; n != 1 {
		t.Errorf("a later pull asked upstream %d times, want once", n)
	}
}

func wantSays(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%.300s\ndoes not say %q", text, word)
		}
	}
}
