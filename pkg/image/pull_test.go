package image_test

import (
	"bytes"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image"
	"github.com/innerdock/innerdock/test/freeport"
)

func TestPull(t *testing.T) {
	h := newHub(t)
	config := v1.Config{Env: []string{"PATH=/bin", "A=b=c", "broken"}, Entrypoint: []string{"/entry"}, Cmd: []string{"x", "y"}, WorkingDir: "/work", User: "app"}
	ref := h.push("team/app:1", imageOf(t, config, files{"a": "1", "d/b": "2"}, files{"d/.wh.b": "", "d/c": "3"}))
	dir := t.TempDir()
	s := newStore(t, image.Config{Dir: dir, Transport: h})
	img := build(t, s, innerdock.ImageDefinition{BaseImage: ref})
	if img.Cached || img.Source != "registry" || img.Base != ref || img.WorkingDir != "/work" || img.User != "app" || strings.Join(img.Entrypoint, " ") != "/entry" ||
		strings.Join(img.Cmd, " ") != "x y" || img.Env["A"] != "b=c" || len(img.Env) != 2 || img.CreatedAt.IsZero() {
		t.Errorf("the image is %+v", img)
	}
	wantFiles(t, s, img.ID, files{"a": "1", "d/c": "3"})
	if info, err := os.Stat(s.Root(img.ID)); err != nil || info.Size() != img.Size {
		t.Errorf("the size is %d, %v; want %d", info.Size(), err, img.Size)
	}
	moved := build(t, s, innerdock.ImageDefinition{BaseImage: ref, WorkingDir: "/srv/", User: "1000:staff"})
	if moved.ID == img.ID || moved.WorkingDir != "/srv" || moved.User != "1000:staff" || moved.Digest != img.Digest || moved.Env["A"] != "b=c" {
		t.Errorf("with another directory and user it is %+v", moved)
	}
	if err := s.Remove(t.Context(), moved.ID); err != nil {
		t.Error(err)
	}
	wantEmpty(t, dir)

	t.Run("again without network", func(t *testing.T) {
		calls := h.callCount()
		again := build(t, s, innerdock.ImageDefinition{BaseImage: ref})
		if found, err := s.Find(t.Context(), "", innerdock.ImageDefinition{BaseImage: ref}); err != nil || found.ID != img.ID || !found.Cached {
			t.Errorf("found %+v, %v", found, err)
		}
		for _, absent := range []innerdock.ImageDefinition{{BaseImage: ref, User: "absent"}, {BaseImage: "127.0.0.1:1/never/asked"}} {
			if _, err := s.Find(t.Context(), "", absent); innerdock.CodeOf(err) != innerdock.CodeImageNotFound {
				t.Errorf("an absent image: %v", err)
			}
		}
		if !again.Cached || again.ID != img.ID || h.callCount() != calls {
			t.Errorf("cached: %v, the same: %v, requests: %d", again.Cached, again.ID == img.ID, h.callCount()-calls)
		}
	})
	t.Run("by digest", func(t *testing.T) {
		digest, err := imageOf(t, config, files{"a": "1", "d/b": "2"}, files{"d/.wh.b": "", "d/c": "3"}).Digest()
		if err != nil {
			t.Fatal(err)
		}
		if again := build(t, s, innerdock.ImageDefinition{BaseImage: h.host() + "/team/app@" + digest.String()}); again.ID != img.ID {
			t.Errorf("the tag gave %s and its digest %s", img.ID, again.ID)
		}
	})
	t.Run("the same file in another store", func(t *testing.T) {
		other := build(t, newStore(t, image.Config{Transport: h}), innerdock.ImageDefinition{BaseImage: ref})
		if other.ID != img.ID || other.Digest != img.Digest {
			t.Errorf("the ID is %s and %s, the digest %s and %s", img.ID, other.ID, img.Digest, other.Digest)
		}
	})
	t.Run("list and remove", func(t *testing.T) {
		listAndRemove(t, s, dir, img)
	})
}

func listAndRemove(t *testing.T, s *image.Store, dir string, img innerdock.Image) {
	all, err := s.List(t.Context())
	if err != nil || len(all) != 1 || all[0].ID != img.ID {
		t.Fatalf("the images are %v, %v", all, err)
	}
	if got, err := s.Get(t.Context(), img.ID); err != nil || got.Digest != img.Digest {
		t.Errorf("got %v, %v", got, err)
	}
	if err := s.Remove(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{img.ID, "sha256:../../etc", "", "../x"} {
		_, err := s.Get(t.Context(), id)
		wantCode(t, err, innerdock.CodeImageNotFound)
		wantCode(t, s.Remove(t.Context(), id), innerdock.CodeImageNotFound)
	}
	if blobs, err := os.ReadDir(filepath.Join(dir, "blobs", "sha256")); err != nil || len(blobs) != 0 {
		t.Errorf("%d layers are left, %v", len(blobs), err)
	}
	wantEmpty(t, dir)
}

func TestPythonFromDockerHub(t *testing.T) {
	h := newHub(t)
	h.push("library/python:3.11", imageOf(t, v1.Config{}, files{"python": "3.11"}))
	h.push("library/python:3.12", imageOf(t, v1.Config{}, files{"python": "3.12"}))
	s := newStore(t, image.Config{Transport: h})
	for version, want := range map[string]string{"": "3.11", "python3": "3.11", "3.11": "3.11", "python3.11": "3.11", "python3.12": "3.12"} {
		img := build(t, s, innerdock.ImageDefinition{PythonVersion: version})
		if img.Base != "index.docker.io/library/python:"+want || img.Source != "registry" {
			t.Errorf("%q became %s from %s", version, img.Base, img.Source)
		}
		wantFiles(t, s, img.ID, files{"python": want})
	}
}

func TestPullIndex(t *testing.T) {
	h := newHub(t)
	mine, other := v1.Platform{OS: "linux", Architecture: runtime.GOARCH}, v1.Platform{OS: "linux", Architecture: "s390x"}
	index := func(platforms ...v1.Platform) v1.ImageIndex {
		var idx v1.ImageIndex = empty.Index
		for _, p := range platforms {
			img := imageOf(t, v1.Config{}, files{"arch": p.Architecture})
			idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &p}})
		}
		return idx
	}
	for tag, idx := range map[string]v1.ImageIndex{"both": index(other, mine), "other": index(other)} {
		ref, err := name.ParseReference(h.host() + "/multi:" + tag)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.WriteIndex(ref, idx); err != nil {
			t.Fatal(err)
		}
	}
	s := newStore(t, image.Config{Transport: h})
	img := build(t, s, innerdock.ImageDefinition{BaseImage: h.host() + "/multi:both"})
	wantFiles(t, s, img.ID, files{"arch": runtime.GOARCH})
	_, err := s.Build(t.Context(), innerdock.ImageDefinition{BaseImage: h.host() + "/multi:other"}, nil)
	wantCode(t, err, innerdock.CodeImageNotFound, "no variant for linux/")
}

func TestPullZstd(t *testing.T) {
	h := newHub(t)
	var data bytes.Buffer
	z, err := zstd.NewWriter(&data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(tarOf(t, files{"z": "std"})); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	img := imageOf(t, v1.Config{})
	img, err = mutate.Append(img, mutate.Addendum{Layer: zstdLayer{data.Bytes(), tarOf(t, files{"z": "std"})}, MediaType: types.OCILayerZStd})
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(t, image.Config{Transport: h})
	wantFiles(t, s, build(t, s, innerdock.ImageDefinition{BaseImage: h.push("z", img)}).ID, files{"z": "std"})
}

// TestDamagedPull has the registry send something else than it promised.
func TestDamagedPull(t *testing.T) {
	h := newHub(t)
	ref := h.push("app", imageOf(t, v1.Config{}, files{"a": strings.Repeat("x", 100_000)}))
	var blobs atomic.Int64
	layer := func(r *http.Request) bool { // the config is smaller, and comes first
		return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") && blobs.Add(1) > 1
	}
	send := func(body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if layer(r) {
				_, _ = w.Write([]byte(body)) // the client may hang up
				return true
			}
			return false
		}
	}
	for _, tc := range []struct {
		name string
		hook func(http.ResponseWriter, *http.Request) bool
		code innerdock.Code
	}{
		{"other bytes", send(strings.Repeat("y", 102_400)), innerdock.CodeUnavailable},
		{"too few", send("xxx"), innerdock.CodeUnavailable},
		{"too many", send(strings.Repeat("y", 1_000_000)), innerdock.CodeUnavailable},
		{"broken off", func(w http.ResponseWriter, r *http.Request) bool {
			if !layer(r) {
				return false
			}
			w.Header().Set("Content-Length", "102400")
			_, _ = w.Write([]byte("xxx"))
			panic(http.ErrAbortHandler)
		}, innerdock.CodeUnavailable},
		{"gone", func(w http.ResponseWriter, r *http.Request) bool {
			if layer(r) {
				http.Error(w, `{"errors":[{"code":"BLOB_UNKNOWN"}]}`, http.StatusNotFound)
				return true
			}
			return false
		}, innerdock.CodeImageNotFound},
	} {
		t.Run(tc.name, func(t *testing.T) {
			blobs.Store(0)
			h.intercept(tc.hook)
			defer h.intercept(nil)
			dir := t.TempDir()
			s := newStore(t, image.Config{Dir: dir, Transport: h})
			_, err := s.Build(t.Context(), innerdock.ImageDefinition{BaseImage: ref}, logEvents(t))
			wantCode(t, err, tc.code)
			wantEmpty(t, dir)
			if all, err := s.List(t.Context()); err != nil || len(all) != 0 {
				t.Errorf("there are images: %v, %v", all, err)
			}
		})
	}
	t.Run("broken off once", func(t *testing.T) {
		blobs.Store(0)
		h.intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if layer(r) && blobs.Load() == 2 {
				panic(http.ErrAbortHandler)
			}
			return false
		})
		defer h.intercept(nil)
		build(t, newStore(t, image.Config{Transport: h}), innerdock.ImageDefinition{BaseImage: ref})
	})
}

func TestWrongDiffID(t *testing.T) {
	h := newHub(t)
	img := imageOf(t, v1.Config{}, files{"a": "1"})
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.RootFS.DiffIDs[0].Hex = strings.Repeat("0", 64)
	img, err = mutate.ConfigFile(img, config)
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(t, image.Config{Transport: h})
	_, err = s.Build(t.Context(), innerdock.ImageDefinition{BaseImage: h.push("app", img)}, nil)
	wantCode(t, err, innerdock.CodeInvalid, "refused")
}

// TestRegistryAnswers checks that an answer is never mistaken for no answer.
func TestRegistryAnswers(t *testing.T) {
	for status, code := range map[int]innerdock.Code{
		http.StatusNotFound: innerdock.CodeImageNotFound, http.StatusUnauthorized: innerdock.CodeUnauthorized,
		http.StatusForbidden: innerdock.CodeUnauthorized, http.StatusTooManyRequests: innerdock.CodeUnavailable,
		http.StatusBadGateway: innerdock.CodeUnavailable,
	} {
		h := newHub(t)
		h.intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/v2/" {
				return false
			}
			w.WriteHeader(status)
			return true
		})
		s := newStore(t, image.Config{Transport: h})
		_, err := s.Build(t.Context(), innerdock.ImageDefinition{PythonVersion: "3.11"}, logEvents(t))
		wantCode(t, err, code, "python:3.11")
	}
}

func TestUnreachable(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	refused := freeport.Address(t)
	for name, ref := range map[string]string{"silent": silent.Addr().String() + "/x", "refused": refused + "/x", "link-local": "169.254.169.254/latest/meta-data"} {
		t.Run(name, func(t *testing.T) {
			s, err := image.Open(image.Config{Dir: t.TempDir(), ProbeTimeout: 200 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			_, err = s.Build(t.Context(), innerdock.ImageDefinition{BaseImage: ref}, nil)
			wantCode(t, err, innerdock.CodeImageNotFound, "cannot be reached", "python3.11")
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestOfflineVersions(t *testing.T) {
	s := newStore(t, image.Config{})
	_, err := s.Build(t.Context(), innerdock.ImageDefinition{PythonVersion: "python3.12"}, nil)
	wantCode(t, err, innerdock.CodeImageNotFound, "python:3.12", "python3.11, python3.13, debian:bookworm and debian:trixie")
}
