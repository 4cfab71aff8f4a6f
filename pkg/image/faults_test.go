package image_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image"
)

// faulty is a network between stores and a hub that can be made worse.
type faulty struct {
	*toxiproxy.Proxy
	t *testing.T
}

func newFaulty(t *testing.T, h *hub) faulty {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	proxy := toxiproxy.NewProxy(server, t.Name(), "127.0.0.1:0", h.host())
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Stop)
	return faulty{proxy, t}
}

// toxic makes what comes from the registry worse, until mend is called.
func (f faulty) toxic(kind, attributes string) (mend func()) {
	f.t.Helper()
	if _, err := f.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(
		`{"name":%q,"type":%q,"stream":"downstream","attributes":%s}`, kind, kind, attributes))); err != nil {
		f.t.Fatal(err)
	}
	return func() {
		if err := f.Toxics.RemoveToxic(f.t.Context(), kind); err != nil {
			f.t.Error(err)
		}
	}
}

// incompressible is content of n bytes that is as long in a layer.
func incompressible(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%x", i*2654435761)
	}
	return b.String()[:n]
}

// TestResume pulls a layer over a network that cuts each connection.
func TestResume(t *testing.T) {
	h := newHub(t)
	content := incompressible(3 << 20)
	h.push("app:1", imageOf(t, v1.Config{}, files{"a": content}))
	f := newFaulty(t, h)
	f.toxic("limit_data", `{"bytes":700000}`)
	var resumed, whole atomic.Int64
	h.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			if r.Header.Get("Range") == "" {
				whole.Add(1)
			} else {
				resumed.Add(1)
			}
		}
		return false
	})
	dir := t.TempDir()
	s := newStore(t, image.Config{Dir: dir, Transport: h})
	img := build(t, s, innerdock.ImageDefinition{BaseImage: f.Listen + "/app:1"})
	wantFiles(t, s, img.ID, files{"a": content})
	if resumed.Load() < 4 || whole.Load() > 3 { // the configuration is a blob too
		t.Errorf("%d requests went on where one had ended, %d began at the start", resumed.Load(), whole.Load())
	}
	wantEmpty(t, dir)
}

// TestBadNetworks pulls over networks that are slow, or broken for a while.
func TestBadNetworks(t *testing.T) {
	h := newHub(t)
	content := incompressible(300_000)
	h.push("app:1", imageOf(t, v1.Config{}, files{"a": content}))
	for _, tc := range []struct {
		name, kind, attributes string
		code                   innerdock.Code // while it is so
	}{
		{"slow", "bandwidth", `{"rate":300}`, ""},
		{"far away", "latency", `{"latency":150,"jitter":50}`, ""},
		{"in pieces", "slicer", `{"average_size":700,"size_variation":300,"delay":100}`, ""},
		{"cut in the layer", "limit_data", `{"bytes":20000}`, ""}, // goes on each time
		{"cut before the manifest", "limit_data", `{"bytes":100}`, innerdock.CodeUnavailable},
		{"reset", "reset_peer", `{"timeout":0}`, innerdock.CodeImageNotFound}, // as if nobody were there
		{"silent", "timeout", `{"timeout":0}`, innerdock.CodeImageNotFound},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFaulty(t, h)
			dir := t.TempDir()
			open := func(patience time.Duration) *image.Store {
				return newStore(t, image.Config{Dir: dir, Transport: http.DefaultTransport, ProbeTimeout: patience, StallTimeout: patience})
			}
			s := open(map[bool]time.Duration{true: time.Second, false: time.Minute}[tc.name == "silent"])
			def := innerdock.ImageDefinition{BaseImage: f.Listen + "/app:1"}
			mend := f.toxic(tc.kind, tc.attributes)
			_, err := s.Build(t.Context(), def, logEvents(t))
			wantCode(t, err, tc.code)
			wantEmpty(t, dir)
			if err == nil {
				return
			}
			if images := list(t, dir, "images"); len(images) > 0 {
				t.Errorf("there are images: %v", images)
			}
			mend()
			s = open(time.Minute)
			wantFiles(t, s, build(t, s, def).ID, files{"a": content})
		})
	}
	t.Run("a layer that stands still", func(t *testing.T) {
		var blobs atomic.Int64
		h.intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") || blobs.Add(1) != 2 { // the first is the configuration
				return false
			}
			w.Header().Set("Content-Length", "302592")
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return true
		})
		defer h.intercept(nil)
		s := newStore(t, image.Config{Transport: h, StallTimeout: 2 * time.Second})
		build(t, s, innerdock.ImageDefinition{BaseImage: h.host() + "/app:1"})
		if blobs.Load() != 3 {
			t.Errorf("%d blobs were asked for", blobs.Load())
		}
	})
}

// TestStatuses has the registry answer for the layer with each status, at first
// or always.
func TestStatuses(t *testing.T) {
	h := newHub(t)
	ref := h.push("app:1", imageOf(t, v1.Config{}, files{"a": incompressible(100_000)}))
	layers, err := imageOf(t, v1.Config{}, files{"a": incompressible(100_000)}).Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		status, times int // times: 0 is always
		code          innerdock.Code
		asked         int // at most
	}{
		{http.StatusTooManyRequests, 2, "", 3}, {http.StatusInternalServerError, 2, "", 3}, {http.StatusServiceUnavailable, 1, "", 2},
		{http.StatusRequestTimeout, 1, "", 2}, {http.StatusBadGateway, 3, "", 4},
		{http.StatusTooManyRequests, 0, innerdock.CodeUnavailable, 5}, {http.StatusInternalServerError, 0, innerdock.CodeUnavailable, 5},
		{http.StatusNotFound, 0, innerdock.CodeImageNotFound, 1}, {http.StatusForbidden, 0, innerdock.CodeUnauthorized, 1},
		{http.StatusUnauthorized, 0, innerdock.CodeUnauthorized, 2}, {http.StatusTeapot, 0, innerdock.CodeUnavailable, 5},
	} {
		t.Run(fmt.Sprintf("%d %d times", tc.status, tc.times), func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int64
			transport := roundTripper(func(r *http.Request) (*http.Response, error) {
				if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, digest.String()) {
					if n := int(asked.Add(1)); tc.times == 0 || n <= tc.times {
						return &http.Response{
							StatusCode: tc.status, Request: r, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
							Header: http.Header{"Retry-After": {"1"}}, Body: http.NoBody,
						}, nil
					}
				}
				return h.RoundTrip(r)
			})
			dir := t.TempDir()
			s := newStore(t, image.Config{Dir: dir, Transport: transport})
			_, err := s.Build(t.Context(), innerdock.ImageDefinition{BaseImage: ref}, nil)
			wantCode(t, err, tc.code)
			if n := int(asked.Load()); n > tc.asked || n <= tc.times {
				t.Errorf("the layer was asked for %d times", n)
			}
			wantEmpty(t, dir)
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestMirrors pulls through mirrors that lack the image, do not answer, and have it.
func TestMirrors(t *testing.T) {
	origin, empty, full := newHub(t), newHub(t), newHub(t)
	img := imageOf(t, v1.Config{}, files{"a": "1"})
	ref := origin.push("app:1", img)
	full.push("app:1", img)
	registry := func(host string) name.Registry {
		r, err := name.NewRegistry(host, name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	mirrors := func(hosts ...string) map[string][]name.Registry {
		var all []name.Registry
		for _, host := range hosts {
			all = append(all, registry(host))
		}
		return map[string][]name.Registry{origin.host(): all}
	}
	account := &innerdock.RegistryCredentials{Username: "me", Password: "secret"}
	for name, tc := range map[string]struct {
		mirrors      []string
		asked, spare *hub
		account      *innerdock.RegistryCredentials
	}{
		"the mirror has it":                    {[]string{full.host()}, full, origin, nil},
		"one mirror lacks it":                  {[]string{empty.host(), full.host()}, full, origin, nil},
		"one does not answer":                  {[]string{"127.0.0.1:1", full.host()}, full, origin, nil},
		"no mirror has it":                     {[]string{empty.host(), "127.0.0.1:1"}, origin, full, nil},
		"an account is for the registry alone": {[]string{empty.host()}, origin, full, account},
	} {
		t.Run(name, func(t *testing.T) {
			leaked := func(_ http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("Authorization") != "" {
					t.Error("a mirror was shown the account")
				}
				return false
			}
			empty.intercept(leaked)
			full.intercept(leaked)
			asked, spared := tc.asked.callCount(), tc.spare.callCount()
			s := newStore(t, image.Config{Transport: http.DefaultTransport, Mirrors: mirrors(tc.mirrors...)})
			wantFiles(t, s, build(t, s, innerdock.ImageDefinition{BaseImage: ref, Credentials: tc.account}).ID, files{"a": "1"})
			if tc.asked.callCount() == asked || tc.spare.callCount() != spared {
				t.Errorf("%d requests where it is, %d where it is not needed", tc.asked.callCount()-asked, tc.spare.callCount()-spared)
			}
		})
	}
}
