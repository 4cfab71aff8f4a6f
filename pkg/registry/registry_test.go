package registry

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/innerdock/innerdock"
)

func TestPullsThroughAndServesFromTheStoreWhenUpstreamIsAway(t *testing.T) {
	h := newHub(t)
	img := h.push("library/thing", "1", 100<<10)
	m := newMirror(t, Config{Upstreams: []string{h.server.URL}})
	m.mustPull("library/thing:1", img)
	m.mustPull("thing:1", img) // without a namespace
	if n := h.count("GET blobs"); n != 2 {
		t.Errorf("upstream sent %d blobs for two pulls, want configuration and layer once", n)
	}
	if n := h.count("GET manifests"); n != 1 {
		t.Errorf("upstream sent %d manifests for two pulls of an unchanged tag", n)
	}
	h.server.Close()
	m.mustPull("thing:1", img)
	m.mustPull("thing@"+mustDigest(t, img), img)
}

func TestTagsAreAskedForEachTime(t *testing.T) {
	h := newHub(t)
	old := h.push("library/thing", "latest", 1000)
	m := newMirror(t, Config{Upstreams: []string{h.server.URL}})
	m.mustPull("thing", old)
	fresh := h.push("library/thing", "latest", 1000)
	m.mustPull("thing", fresh)
	h.fail(broken)
	m.mustPull("thing", fresh)
}

func TestConcurrentPullsShareOneDownload(t *testing.T) {
	h := newHub(t)
	img := h.push("library/big", "1", 1<<20)
	gate := make(chan struct{})
	h.fail(blobsOnly(slow(gate)))
	m := newMirror(t, Config{Upstreams: []string{h.server.URL}})
	var group sync.WaitGroup
	failures := make(chan error, 10)
	for range 10 {
		group.Go(func() {
			if _, err := m.pull("big:1"); err != nil {
				failures <- err
			}
		})
	}
	_, digest := layerOf(t, img)
	waitFor(t, "all pulls to follow the download", func() bool {
		m.cache.downloads.mu.Lock()
		defer m.cache.downloads.mu.Unlock()
		one := m.cache.downloads.running[bigBlob(digest)]
		return one != nil && one.followers == 10
	})
	close(gate)
	group.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
	if n := h.count("GET blobs"); n != 2 {
		t.Errorf("10 pulls made %d downloads, want 2 (configuration and layer)", n)
	}
}

func TestFaultsUpstream(t *testing.T) {
	tests := []struct {
		name  string
		fault fault
		works bool
	}{
		{"a cut download goes on where it stopped", cutOnce(), true},
		{"a download that is cut every time fails", blobsOnly(cut), false},
		{"another content than its digest is refused", blobsOnly(corrupt), false},
		{"a passing 500 is asked again", onlyOnce(blobsOnly(broken)), true},
		{"a lasting 500 fails", blobsOnly(broken), false},
		{"an answer of unknown length works", blobsOnly(chunked), true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := newHub(t)
			img := h.push("library/thing", "1", 300<<10)
			h.fail(test.fault)
			m := newMirror(t, Config{Upstreams: []string{h.server.URL}})
			_, err := m.pull("thing:1")
			_, digest := layerOf(t, img)
			if (err == nil) != test.works {
				t.Errorf("pull: %v; want success: %v", err, test.works)
			}
			if m.cache.store.has(digest) != test.works {
				t.Errorf("stored: %v; want %v", !test.works, test.works)
			}
			h.fail(nil)
			m.mustPull("thing:1", img)
			noHalves(t, m.dir)
		})
	}
}

// cutOnce cuts the first answer and then serves ranges.
func cutOnce() fault {
	var mu sync.Mutex
	seen := false
	return blobsOnly(func(w http.ResponseWriter, r *http.Request, answer func() *httptest.ResponseRecorder) bool {
		mu.Lock()
		first := !seen
		seen = true
		mu.Unlock()
		if first {
			return cut(w, r, answer)
		}
		if r.Header.Get("Range") == "" {
			w.WriteHeader(http.StatusTeapot) // it should have asked for the rest
			return true
		}
		return false
	})
}

// onlyOnce applies a fault to the first request that it fits.
func onlyOnce(f fault) fault {
	var mu sync.Mutex
	done := false
	return func(w http.ResponseWriter, r *http.Request, answer func() *httptest.ResponseRecorder) bool {
		mu.Lock()
		defer mu.Unlock()
		if done {
			return false
		}
		done = f(w, r, answer)
		return done
	}
}

func TestFaultyManifestsAreRefused(t *testing.T) {
	h := newHub(t)
	img := h.push("library/thing", "1", 1000)
	manifests := func(f fault) fault {
		return func(w http.ResponseWriter, r *http.Request, answer func() *httptest.ResponseRecorder) bool {
			return strings.Contains(r.URL.Path, "/manifests/") && f(w, r, answer)
		}
	}
	huge := func(w http.ResponseWriter, _ *http.Request, _ func() *httptest.ResponseRecorder) bool {
		for block := strings.Repeat(" ", 1<<20); ; {
			if _, err := io.WriteString(w, block); err != nil {
				return true
			}
		}
	}
	page := func(w http.ResponseWriter, _ *http.Request, _ func() *httptest.ResponseRecorder) bool {
		_, _ = io.WriteString(w, "<html>Please log in to the hotel's network</html>")
		return true
	}
	for name, f := range map[string]fault{"corrupt": corrupt, "too large": huge, "not a manifest": page, "cut": cut} {
		t.Run(name, func(t *testing.T) {
			m := newMirror(t, Config{Upstreams: []string{h.server.URL}})
			h.fail(manifests(f))
			for _, reference := range []string{"1", mustDigest(t, img)} {
				response, body := m.get(http.MethodGet, "/v2/library/thing/manifests/"+reference, nil)
				if response.StatusCode != http.StatusNotFound || !strings.Contains(body, codeManifestUnknown) {
					t.Errorf("%s: %s %s", reference, response.Status, body)
				}
			}
			h.fail(nil)
			m.mustPull("thing:1", img)
		})
	}
}

func TestMissingImages(t *testing.T) {
	h := newHub(t)
	online := newMirror(t, Config{Upstreams: []string{h.server.URL}})
	offline := newMirror(t, Config{Upstreams: []string{closedPort(t)}})
	if !online.cache.Reachable(t.Context()) || offline.cache.Reachable(t.Context()) {
		t.Error("Reachable does not tell a registry that answers from one that does not")
	}
	tests := []struct {
		name string
		m    *mirror
		path string
		want []string
	}{
		{"no such image", online, "/v2/library/nosuch/manifests/latest", []string{codeManifestUnknown, "no public image nosuch:latest", "docker login"}},
		{"no such blob", online, "/v2/library/nosuch/blobs/sha256:" + strings.Repeat("a", 64), []string{codeBlobUnknown}},
		{"offline", offline, "/v2/library/nginx/manifests/latest", []string{codeManifestUnknown, "nginx:latest is not in innerdock's image cache", "docker load"}},
		{"offline, a blob", offline, "/v2/library/nginx/blobs/sha256:" + strings.Repeat("a", 64), []string{codeBlobUnknown, "cannot be reached"}},
		{"no such path", online, "/v2/library/nginx/tags/list", []string{codeUnsupported}},
		{"climbing", online, "/v2/../etc/manifests/passwd", []string{codeUnsupported}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			response, body := test.m.get(http.MethodGet, test.path, nil)
			if response.StatusCode != http.StatusNotFound {
				t.Errorf("status %s, want 404: the daemon then asks Docker Hub itself", response.Status)
			}
			for _, want := range test.want {
				if !strings.Contains(body, want) {
					t.Errorf("%s\ndoes not say %q", body, want)
				}
			}
		})
	}
}

func TestUnreachableUpstreamIsRemembered(t *testing.T) {
	m := newMirror(t, Config{Upstreams: []string{closedPort(t)}})
	var dials atomic.Int64
	dial := m.cache.upstream[0].transport.DialContext
	m.cache.upstream[0].transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		dials.Add(1)
		return dial(ctx, network, address)
	}
	m.get(http.MethodGet, "/v2/library/a/manifests/1", nil)
	first := dials.Load()
	for range 5 {
		m.get(http.MethodGet, "/v2/library/b/manifests/1", nil)
	}
	if first == 0 || dials.Load() != first {
		t.Errorf("upstream was dialled %d times at first and %d times after it did not answer", first, dials.Load()-first)
	}
	m.passUnreachable()
	m.get(http.MethodGet, "/v2/library/b/manifests/1", nil)
	if dials.Load() == first {
		t.Error("upstream is never tried again")
	}
}

func TestRangesAndHeads(t *testing.T) {
	h := newHub(t)
	img := h.push("library/thing", "1", 300<<10)
	layer, digest := layerOf(t, img)
	content, err := layer.Compressed()
	must(t, err)
	whole, err := io.ReadAll(content)
	must(t, err)
	m := newMirror(t, Config{Upstreams: []string{h.server.URL}})
	path := "/v2/library/thing/blobs/" + digest
	head := func(state string) {
		response, _ := m.get(http.MethodHead, path, nil)
		if response.StatusCode != http.StatusOK || response.ContentLength != int64(len(whole)) || response.Header.Get("Docker-Content-Digest") != digest {
			t.Errorf("HEAD of a blob %s: %s, %d bytes, want %d", state, response.Status, response.ContentLength, len(whole))
		}
	}
	head("upstream")
	for _, state := range []string{"upstream", "stored"} {
		response, body := m.get(http.MethodGet, path, http.Header{"Range": {"bytes=1000-1999"}})
		if response.StatusCode != http.StatusPartialContent || body != string(whole[1000:2000]) {
			t.Errorf("range of a blob %s: %s, %d bytes", state, response.Status, len(body))
		}
		if _, body := m.get(http.MethodGet, path, nil); body != string(whole) {
			t.Errorf("a blob %s came out different", state)
		}
	}
	head("stored")
	response, _ := m.get(http.MethodHead, "/v2/library/thing/manifests/1", nil)
	if response.StatusCode != http.StatusOK || response.Header.Get("Docker-Content-Digest") != mustDigest(t, img) {
		t.Errorf("HEAD of a manifest: %s %v", response.Status, response.Header)
	}
	response, body := m.get(http.MethodGet, "/v2/", nil)
	if response.StatusCode != http.StatusOK || body != "{}" {
		t.Errorf("/v2/: %s %s", response.Status, body)
	}
	if response, _ := m.get(http.MethodPut, "/v2/library/thing/manifests/1", nil); response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("PUT: %s", response.Status)
	}
}

func TestRestartKeepsContentAndForgetsHalves(t *testing.T) {
	h := newHub(t)
	img := h.push("library/thing", "1", 100<<10)
	dir := t.TempDir()
	first := newMirror(t, Config{Dir: dir, Upstreams: []string{h.server.URL}})
	first.mustPull("thing:1", img)
	if _, err := Open(Config{Dir: dir}); innerdock.CodeOf(err) != innerdock.CodeConflict {
		t.Errorf("two caches on one directory: %v, want a conflict", err)
	}
	first.stop()
	must(t, os.WriteFile(filepath.Join(dir, "incoming", "new-half"), []byte("half"), 0o600))
	h.server.Close()
	second := newMirror(t, Config{Dir: dir, Upstreams: []string{h.server.URL}})
	second.mustPull("thing:1", img)
	noHalves(t, dir)
}

func TestCloseInTheMiddleOfADownloadLeavesNoHalf(t *testing.T) {
	h := newHub(t)
	img := h.push("library/big", "1", 1<<20)
	h.fail(blobsOnly(slow(nil)))
	m := newMirror(t, Config{Upstreams: []string{h.server.URL}})
	ended := make(chan error, 1)
	go func() {
		_, err := m.pull("big:1")
		ended <- err
	}()
	_, digest := layerOf(t, img)
	waitFor(t, "the download to begin", func() bool {
		m.cache.downloads.mu.Lock()
		one := m.cache.downloads.running[bigBlob(digest)]
		m.cache.downloads.mu.Unlock()
		return one != nil && one.received() > 0
	})
	m.stop()
	if err := <-ended; err == nil {
		t.Error("the pull succeeded")
	}
	noHalves(t, m.dir)
	if _, err := os.Stat(m.cache.store.path(digest)); err == nil {
		t.Error("half a blob was stored")
	}
}

func TestAKilledProcessLeavesNoHalf(t *testing.T) {
	h := newHub(t)
	img := h.push("library/big", "1", 1<<20)
	_, digest := layerOf(t, img)
	h.fail(blobsOnly(slow(nil)))
	dir := t.TempDir()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "REGISTRY_TEST_DIR="+dir, "REGISTRY_TEST_UPSTREAM="+h.server.URL, "REGISTRY_TEST_DIGEST="+digest)
	must(t, child.Start())
	waitFor(t, "bytes of the download", func() bool {
		entries, _ := os.ReadDir(filepath.Join(dir, "incoming"))
		for _, entry := range entries {
			if info, err := entry.Info(); err == nil && info.Size() > 100<<10 {
				return true
			}
		}
		return false
	})
	must(t, child.Process.Kill())
	_ = child.Wait() // it was killed
	h.server.CloseClientConnections()
	h.fail(nil)
	m := newMirror(t, Config{Dir: dir, Upstreams: []string{h.server.URL}})
	noHalves(t, dir)
	if m.cache.store.has(digest) {
		t.Error("half a blob was stored")
	}
	m.mustPull("big:1", img)
}

func TestADownloadThatNobodyFollowsEnds(t *testing.T) {
	h := newHub(t)
	img := h.push("library/big", "1", 1<<20)
	h.fail(blobsOnly(slow(nil)))
	m := newMirror(t, Config{Upstreams: []string{h.server.URL}})
	_, digest := layerOf(t, img)
	ctx, cancel := context.WithCancel(t.Context())
	f, err := m.cache.downloads.follow(ctx, bigBlob(digest))
	must(t, err)
	cancel()
	if _, err := io.Copy(io.Discard, f); !errors.Is(err, context.Canceled) {
		t.Errorf("reading on after leaving: %v", err)
	}
	f.close()
	waitFor(t, "the temporary file to go", func() bool {
		entries, err := os.ReadDir(filepath.Join(m.dir, "incoming"))
		return err == nil && len(entries) == 0
	})
}

func TestSeededImages(t *testing.T) {
	img, err := random.Image(50<<10, 2)
	must(t, err)
	dir := t.TempDir()
	offline := newMirror(t, Config{Dir: dir, Upstreams: []string{closedPort(t)}})
	must(t, offline.cache.Seed(t.Context(), "thing", img))
	if !offline.cache.Seeded("thing:latest") || offline.cache.Seeded("other") {
		t.Error("Seeded does not know what was seeded")
	}
	offline.mustPull("library/thing:latest", img)
	if err := offline.cache.Seed(t.Context(), "ghcr.io/a/b", img); innerdock.CodeOf(err) != innerdock.CodeInvalid {
		t.Errorf("seeding another registry's name: %v", err)
	}
	offline.stop()

	h := newHub(t)
	online := newMirror(t, Config{Dir: dir, Upstreams: []string{h.server.URL}})
	online.mustPull("thing", img) // upstream has none
	newer := h.push("library/thing", "latest", 1000)
	online.mustPull("thing", newer)
	h.server.Close()
	online.mustPull("thing", newer)
	online.mustPull("thing@"+mustDigest(t, img), img)
}

// offers has one image, and notes what it was asked for.
type offers struct {
	ref   string
	img   v1.Image
	asked []string
	held  int
}

func (o *offers) Offer(_ context.Context, ref string) (v1.Image, func(), error) {
	o.asked = append(o.asked, ref)
	if ref != o.ref {
		return nil, nil, innerdock.Errorf(innerdock.CodeImageNotFound, "no %s", ref)
	}
	o.held++
	return o.img, func() { o.held-- }, nil
}

// What is offered is served where upstream has no answer, is taken once, and takes
// nobody's place.
func TestOffers(t *testing.T) {
	img, err := random.Image(50<<10, 2)
	must(t, err)
	offline := newMirror(t, Config{Upstreams: []string{closedPort(t)}})
	o := &offers{ref: "docker.io/library/python:3.11", img: img}
	offline.cache.UseOffers(o)
	offline.mustPull("python:3.11", img)
	offline.mustPull("python:3.11", img)
	offline.wantMissing("/v2/library/python/manifests/3.12")
	if want := []string{o.ref, "docker.io/library/python:3.12"}; !slices.Equal(slices.Compact(o.asked), want) || o.held != 0 {
		t.Errorf("asked for %q, and %d are held", o.asked, o.held)
	}

	h := newHub(t)
	online := newMirror(t, Config{Upstreams: []string{h.server.URL}})
	o.asked = nil
	online.cache.UseOffers(o)
	online.wantMissing("/v2/library/python/manifests/3.11") // upstream says that there is none
	online.mustPull("python:3.12", h.push("library/python", "3.12", 1000))
	if len(o.asked) != 0 {
		t.Errorf("asked for %q although upstream answers", o.asked)
	}
}

func TestTheStoreKeepsToItsSize(t *testing.T) {
	h := newHub(t)
	seeded, err := random.Image(400<<10, 1)
	must(t, err)
	m := newMirror(t, Config{Upstreams: []string{h.server.URL}, MaxBytes: 1 << 20})
	must(t, m.cache.Seed(t.Context(), "seeded", seeded))
	first := h.push("library/first", "1", 400<<10)
	second := h.push("library/second", "1", 400<<10)
	third := h.push("library/third", "1", 400<<10)
	m.mustPull("first:1", first)
	m.mustPull("second:1", second)
	m.mustPull("third:1", third)
	_, oldest := layerOf(t, first)
	_, newest := layerOf(t, third)
	if m.cache.store.has(oldest) || !m.cache.store.has(newest) {
		t.Error("the store did not remove what was not used for longest")
	}
	var total int64
	entries, err := os.ReadDir(filepath.Join(m.dir, "blobs", "sha256"))
	must(t, err)
	for _, entry := range entries {
		info, err := entry.Info()
		must(t, err)
		total += info.Size()
	}
	if limit := int64(1<<20 + 500<<10); total > limit {
		t.Errorf("the store holds %d bytes, more than %d", total, limit)
	}
	m.mustPull("first:1", first) // comes again
	if !m.cache.Seeded("seeded") {
		t.Error("a seeded image was removed")
	}
	huge := h.push("library/huge", "1", 2<<20)
	m.mustPull("huge:1", huge) // passed through
	if _, digest := layerOf(t, huge); m.cache.store.has(digest) {
		t.Error("an image larger than the store was stored")
	}
	noHalves(t, m.dir)
}

func TestOpenRefusesAWrongUpstream(t *testing.T) {
	for _, upstream := range []string{"docker.io", "ftp://x", "https://", "://", "https://u:p@x", "https://x/path"} {
		if _, err := Open(Config{Dir: t.TempDir(), Upstreams: []string{upstream}}); innerdock.CodeOf(err) != innerdock.CodeInvalid {
			t.Errorf("%q: %v", upstream, err)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	f.Add("/v2/library/nginx/manifests/latest")
	f.Add("/v2/nginx/blobs/sha256:" + strings.Repeat("0", 64))
	f.Add("/v2/../../x/manifests/..")
	f.Fuzz(func(t *testing.T, path string) {
		found, ok := parsePath(path)
		if !ok {
			return
		}
		if strings.Contains(found.repository, "..") || strings.HasPrefix(found.repository, "/") ||
			strings.ContainsAny(found.tag+found.digest, "/\x00") || (found.tag == "") == (found.digest == "") {
			t.Errorf("%q is %+v", path, found)
		}
	})
}

// noHalves tells that no temporary file is left and each blob has its digest.
func noHalves(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(filepath.Join(dir, "incoming"))
	must(t, err)
	for _, entry := range left {
		t.Errorf("%s was left", entry.Name())
	}
	blobs, err := os.ReadDir(filepath.Join(dir, "blobs", "sha256"))
	must(t, err)
	for _, entry := range blobs {
		content, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", entry.Name()))
		must(t, err)
		if digestOf(content) != "sha256:"+entry.Name() {
			t.Errorf("the blob %s has other content", entry.Name())
		}
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for tick := time.NewTicker(2 * time.Millisecond); !ok(); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
