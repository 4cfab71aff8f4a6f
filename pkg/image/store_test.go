package image_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image"
)

// makeOld makes an image look as if it was last used long ago.
func makeOld(t *testing.T, dir, id string, age time.Duration) {
	t.Helper()
	when := time.Now().Add(-age)
	if err := os.Chtimes(filepath.Join(dir, "images", strings.TrimPrefix(id, "sha256:"), "image.json"), when, when); err != nil {
		t.Fatal(err)
	}
}

func idsOf(images []innerdock.Image) map[string]bool {
	ids := map[string]bool{}
	for _, img := range images {
		ids[img.ID] = true
	}
	return ids
}

func TestPrune(t *testing.T) {
	h := newHub(t)
	shared := files{"shared": strings.Repeat("s", 1<<20)}
	dir := t.TempDir()
	used := map[string]string{}
	s := newStore(t, image.Config{Dir: dir, Transport: h, InUse: func(context.Context) (map[string]string, error) { return used, nil }})
	var ids []string
	for _, n := range []string{"a", "b", "c", "d"} {
		ref := h.push(n, imageOf(t, v1.Config{}, shared, files{n: strings.Repeat(n, 1<<20)}))
		ids = append(ids, build(t, s, innerdock.ImageDefinition{BaseImage: ref}).ID)
	}
	prune := func(what innerdock.ImagePrune, want ...int) innerdock.ImagesPruned {
		t.Helper()
		pruned, err := s.Prune(t.Context(), what)
		if err != nil {
			t.Fatal(err)
		}
		got := idsOf(pruned.Images)
		for _, n := range want {
			if !got[ids[n]] {
				t.Errorf("image %d was not removed", n)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%d images were removed, want %d", len(got), len(want))
		}
		return pruned
	}
	prune(innerdock.ImagePrune{}) // all were used just now
	for i, id := range ids {
		makeOld(t, dir, id, time.Duration(i+1)*time.Hour)
	}
	used[ids[3]] = "snapshot mine"
	wantCode(t, s.Remove(t.Context(), ids[3]), innerdock.CodeConflict, "snapshot mine", "remove")
	prune(innerdock.ImagePrune{UnusedFor: 5 * 3600})
	prune(innerdock.ImagePrune{UnusedFor: 2.5 * 3600, DryRun: true}, 2) // not 3, which is in use
	pruned := prune(innerdock.ImagePrune{UnusedFor: 2.5 * 3600}, 2)
	// Its file and its own layer; the shared layer stays.
	if pruned.Freed < 3<<20 || pruned.Freed > 4<<20-100<<10 {
		t.Errorf("%d bytes were freed", pruned.Freed)
	}
	wantEmpty(t, dir)
	if _, err := s.Get(t.Context(), ids[1]); err != nil { // now it is the most recently used
		t.Fatal(err)
	}
	makeOld(t, dir, ids[1], 20*time.Minute)
	prune(innerdock.ImagePrune{Keep: 8 << 20}, 0)
	delete(used, ids[3])
	prune(innerdock.ImagePrune{}, 1, 3)
	if blobs := list(t, dir, "blobs/sha256"); len(blobs) != 0 {
		t.Errorf("%d blobs are left", len(blobs))
	}
}

// TestPruneAndBuild prunes all the time while images are built and used.
func TestPruneAndBuild(t *testing.T) {
	h := newHub(t)
	dir := t.TempDir()
	s := newStore(t, image.Config{Dir: dir, Transport: h})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			images, err := s.List(ctx)
			if err != nil && ctx.Err() == nil {
				t.Error(err)
			}
			for _, img := range images {
				when := time.Now().Add(-time.Hour)
				_ = os.Chtimes(filepath.Join(dir, "images", strings.TrimPrefix(img.ID, "sha256:"), "image.json"), when, when) // it may be gone
			}
			if _, err := s.Prune(ctx, innerdock.ImagePrune{}); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	})
	ref := h.push("app", imageOf(t, v1.Config{}, files{"a": "1"}, files{"b": "2"}))
	for range 20 {
		_, err := s.Build(t.Context(), innerdock.ImageDefinition{BaseImage: ref, Env: map[string]string{"A": "b"}}, nil)
		// The base may go between its making and its use: that is said, and trying again helps.
		if code := innerdock.CodeOf(err); err != nil && code != innerdock.CodeInternal {
			t.Error(err)
		}
	}
	cancel()
	wg.Wait()
	img := build(t, s, innerdock.ImageDefinition{BaseImage: ref, Env: map[string]string{"A": "b"}})
	wantFiles(t, s, img.ID, files{"a": "1", "b": "2"})
	wantEmpty(t, dir)
}

// TestSharedPulls has many images with one layer pulled at once, by two servers.
func TestSharedPulls(t *testing.T) {
	h := newHub(t)
	shared := files{"shared": strings.Repeat("s", 1<<20)}
	var refs []string
	for _, n := range []string{"a", "b", "c", "d"} {
		refs = append(refs, h.push(n, imageOf(t, v1.Config{}, shared, files{n: n})))
	}
	dir := t.TempDir()
	stores := []*image.Store{newStore(t, image.Config{Dir: dir, Transport: h}), newStore(t, image.Config{Dir: dir, Transport: h})}
	layer, err := imageOf(t, v1.Config{}, shared).Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layer[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	fetched := h.count("/blobs/" + digest.String())
	var wg sync.WaitGroup
	for i, ref := range refs {
		for _, s := range stores {
			wg.Go(func() {
				if _, err := s.Build(t.Context(), innerdock.ImageDefinition{BaseImage: ref}, nil); err != nil {
					t.Errorf("image %d: %v", i, err)
				}
			})
		}
	}
	wg.Wait()
	if n := fetched(); n != 1 {
		t.Errorf("the shared layer was asked for %d times", n)
	}
	wantEmpty(t, dir)
}

func TestHistory(t *testing.T) {
	h := newHub(t)
	s := newStore(t, image.Config{Transport: h})
	ref := h.push("app", imageOf(t, v1.Config{Env: []string{"A=1"}}, files{"a": "1"}))
	img := build(t, s, innerdock.ImageDefinition{BaseImage: ref, Env: map[string]string{"B": "2"}, Steps: commands("printf 1 > b", "printf 2 > b")})
	layers, err := s.History(t.Context(), img.ID)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range layers {
		if (l.Digest == "") != (l.Size == 0) {
			t.Errorf("a layer without size, or a size without layer: %+v", l)
		}
		got = append(got, strings.TrimPrefix(l.CreatedBy, "/bin/sh -c "))
	}
	if want := []string{"printf 2 > b", "printf 1 > b", ""}; strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("the history is %q, want %q", got, want)
	}
	_, err = s.History(t.Context(), "sha256:"+strings.Repeat("0", 64))
	wantCode(t, err, innerdock.CodeImageNotFound)
}

// TestPush pushes what was pulled, whose digest stays, and what was built, which
// another store then pulls.
func TestPush(t *testing.T) {
	h := newHub(t)
	s := newStore(t, image.Config{Transport: h})
	original := imageOf(t, v1.Config{Cmd: []string{"x"}}, files{"a": "1"}, files{"b": "2"})
	base := build(t, s, innerdock.ImageDefinition{BaseImage: h.push("app", original)})
	if _, err := s.Push(t.Context(), base.ID, innerdock.ImagePush{Reference: h.host() + "/copy:1"}, logEvents(t)); err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(h.host() + "/copy:1")
	if err != nil {
		t.Fatal(err)
	}
	copied, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := original.Digest()
	if got, err := copied.Digest(); err != nil || got != want {
		t.Errorf("the digest became %v, %v; it was %v", got, err, want)
	}
	built := build(t, s, innerdock.ImageDefinition{BaseImage: h.host() + "/app", Env: map[string]string{"E": "f"}, Steps: commands("rm a; printf 3 > c")})
	if _, err := s.Push(t.Context(), built.ID, innerdock.ImagePush{Reference: h.host() + "/built:1"}, nil); err != nil {
		t.Fatal(err)
	}
	other := newStore(t, image.Config{Transport: h})
	img := build(t, other, innerdock.ImageDefinition{BaseImage: h.host() + "/built:1"})
	wantFiles(t, other, img.ID, files{"b": "2", "c": "3"})
	if img.Env["E"] != "f" || strings.Join(img.Cmd, " ") != "x" || img.Digest != built.Digest {
		t.Errorf("the image is %+v, it was pushed as %+v", img, built)
	}
	for ref, code := range map[string]innerdock.Code{"": innerdock.CodeInvalid, "x y": innerdock.CodeInvalid, "127.0.0.1:1/x": innerdock.CodeUnavailable,
		h.host() + "/x@sha256:" + strings.Repeat("0", 64): innerdock.CodeInvalid} {
		_, err := s.Push(t.Context(), base.ID, innerdock.ImagePush{Reference: ref}, nil)
		wantCode(t, err, code)
	}
}

func TestExportAndImport(t *testing.T) {
	h := newHub(t)
	s := newStore(t, image.Config{Transport: h})
	ref := h.push("app:1", imageOf(t, v1.Config{Cmd: []string{"x"}, Env: []string{"A=1"}}, files{"a": "1"}, files{"b": "2"}))
	built := build(t, s, innerdock.ImageDefinition{BaseImage: ref, Steps: commands("printf 3 > c")})
	var archive bytes.Buffer
	if err := s.Export(t.Context(), built.ID, func() {}, &archive); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	other := newStore(t, image.Config{Dir: dir})
	img, err := other.Import(t.Context(), bytes.NewReader(archive.Bytes()), logEvents(t))
	if err != nil {
		t.Fatal(err)
	}
	wantFiles(t, other, img.ID, files{"a": "1", "b": "2", "c": "3"})
	if img.Digest != built.Digest || img.Base != ref || img.Source != "archive" || img.Env["A"] != "1" || strings.Join(img.Cmd, " ") != "x" {
		t.Errorf("the image is %+v, it was %+v", img, built)
	}
	if again, err := other.Import(t.Context(), bytes.NewReader(archive.Bytes()), nil); err != nil || !again.Cached || again.ID != img.ID {
		t.Errorf("again it is %+v, %v", again, err)
	}
	wantEmpty(t, dir)

	t.Run("for docker load", func(t *testing.T) {
		// The part of docker load that reads manifest.json, by others. It knows no zstd, so without steps.
		base := build(t, s, innerdock.ImageDefinition{BaseImage: ref})
		var archive bytes.Buffer
		if err := s.Export(t.Context(), base.ID, func() {}, &archive); err != nil {
			t.Fatal(err)
		}
		tag, err := name.NewTag(ref)
		if err != nil {
			t.Fatal(err)
		}
		loaded, err := tarball.Image(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive.Bytes())), nil }, &tag)
		if err != nil {
			t.Fatal(err)
		}
		layers, err := loaded.Layers()
		if err != nil || len(layers) != 2 {
			t.Errorf("there are %d layers, %v", len(layers), err)
		}
	})
	t.Run("of docker save", func(t *testing.T) {
		tag, err := name.NewTag("example.com/app:2")
		if err != nil {
			t.Fatal(err)
		}
		var archive bytes.Buffer
		if err := tarball.Write(tag, imageOf(t, v1.Config{}, files{"a": "1"}, files{".wh.a": "", "b": "2"}), &archive); err != nil {
			t.Fatal(err)
		}
		img, err := other.Import(t.Context(), &archive, logEvents(t))
		if err != nil {
			t.Fatal(err)
		}
		wantFiles(t, other, img.ID, files{"b": "2"})
		if img.Base != "example.com/app:2" {
			t.Errorf("its base is %q", img.Base)
		}
	})
}

// TestHostileArchives imports what is not an archive of an image.
func TestHostileArchives(t *testing.T) {
	h := newHub(t)
	source := newStore(t, image.Config{Transport: h})
	img := build(t, source, innerdock.ImageDefinition{BaseImage: h.push("app", imageOf(t, v1.Config{}, files{"a": strings.Repeat("1", 5000)}))})
	var good bytes.Buffer
	if err := source.Export(t.Context(), img.ID, func() {}, &good); err != nil {
		t.Fatal(err)
	}
	entries := filesOf(t, good.Bytes())
	with := func(change func(files)) []byte {
		changed := files{}
		for k, v := range entries {
			changed[k] = v
		}
		change(changed)
		return tarOf(t, changed)
	}
	index := func(replace, by string) []byte {
		return with(func(f files) { f["index.json"] = strings.Replace(f["index.json"], replace, by, 1) })
	}
	layer := ""
	for name, content := range entries {
		if len(content) > 5000 {
			layer = name
		}
	}
	manifest := func(lines string) []byte { return tarOf(t, files{"manifest.json": lines, "c": "{}", "l": "x"}) }
	for name, tc := range map[string]struct {
		archive []byte
		code    innerdock.Code
	}{
		"nothing":                 {nil, innerdock.CodeInvalid},
		"garbage":                 {bytes.Repeat([]byte("garbage!"), 1000), innerdock.CodeInvalid},
		"cut off":                 {good.Bytes()[:good.Len()/2], innerdock.CodeInvalid},
		"no layer":                {with(func(f files) { delete(f, layer) }), innerdock.CodeInvalid},
		"a damaged layer":         {with(func(f files) { f[layer] = strings.ToUpper(f[layer]) + "x" }), innerdock.CodeInvalid},
		"too large":               {with(func(f files) { f["x"] = strings.Repeat("x", 9<<20) }), innerdock.CodeTooLarge},
		"names that lead out":     {with(func(f files) { f["../../../../etc/innerdock-canary"], f["/etc/innerdock-canary"] = "x", "x" }), ""},
		"no JSON":                 {with(func(f files) { f["index.json"] = "[" }), innerdock.CodeInvalid},
		"no image":                {with(func(f files) { f["index.json"] = `{"schemaVersion":2,"manifests":[]}` }), innerdock.CodeInvalid},
		"another platform":        {index(`"mediaType":"application/vnd.docker.distribution.manifest.v2+json"`, `"platform":{"os":"plan9","architecture":"mips"},"mediaType":"application/vnd.docker.distribution.manifest.v2+json"`), innerdock.CodeImageNotFound},
		"a digest that leads out": {index(`"digest":"sha256:`, `"digest":"sha256:../../../`), innerdock.CodeInvalid},
		"docker, no layers":       {manifest(`[{"Config":"c","Layers":["nothing"]}]`), innerdock.CodeInvalid},
		"docker, a path out":      {manifest(`[{"Config":"../../../../../etc/passwd","Layers":[]}]`), innerdock.CodeInvalid},
		"docker, two images":      {manifest(`[{"Config":"c"},{"Config":"c"}]`), innerdock.CodeInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := newStore(t, image.Config{Dir: dir, Limits: smallLimits()})
			_, err := s.Import(t.Context(), bytes.NewReader(tc.archive), nil)
			wantCode(t, err, tc.code)
			wantEmpty(t, dir)
			if _, err := os.Lstat("/etc/innerdock-canary"); err == nil {
				t.Error("a file was made on the host")
			}
			if images := list(t, dir, "images"); tc.code != "" && len(images) != 0 {
				t.Errorf("there are images: %v", images)
			}
		})
	}
}

// TestCredentials pulls a private image: with the request's account, with the
// server's, and without.
func TestCredentials(t *testing.T) {
	h := newHub(t)
	h.protect("me", "secret-password")
	h.intercept(nil)
	ref := h.push("private", imageOf(t, v1.Config{}, files{"a": "1"}))
	h.intercept(h.demand)
	me := &innerdock.RegistryCredentials{Username: "me", Password: "secret-password"}
	dir := t.TempDir()
	s := newStore(t, image.Config{Dir: dir, Transport: h})
	_, err := s.Build(t.Context(), innerdock.ImageDefinition{BaseImage: ref}, nil)
	wantCode(t, err, innerdock.CodeUnauthorized)
	_, err = s.Build(t.Context(), innerdock.ImageDefinition{BaseImage: ref, Credentials: &innerdock.RegistryCredentials{Username: "me", Password: "wrong"}}, nil)
	wantCode(t, err, innerdock.CodeUnauthorized)
	img := build(t, s, innerdock.ImageDefinition{BaseImage: ref, Credentials: me})
	wantFiles(t, s, img.ID, files{"a": "1"})

	t.Run("what was had with an account is not for everybody", func(t *testing.T) {
		_, err := s.Build(t.Context(), innerdock.ImageDefinition{BaseImage: ref}, nil)
		wantCode(t, err, innerdock.CodeUnauthorized)
		digest, derr := imageOf(t, v1.Config{}, files{"a": "1"}).Digest()
		if derr != nil {
			t.Fatal(derr)
		}
		_, err = s.Build(t.Context(), innerdock.ImageDefinition{BaseImage: h.host() + "/private@" + digest.String()}, nil)
		wantCode(t, err, innerdock.CodeUnauthorized)
		if again := build(t, s, innerdock.ImageDefinition{BaseImage: ref, Credentials: me}); !again.Cached || again.ID != img.ID {
			t.Errorf("with the account again: %+v", again)
		}
	})
	t.Run("the password is nowhere", func(t *testing.T) {
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			if bytes.Contains(data, []byte(me.Password)) {
				t.Errorf("it is in %s", path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	t.Run("of Docker's configuration, with a helper", func(t *testing.T) {
		bin, config := t.TempDir(), t.TempDir()
		helper := "#!/bin/sh\nread host\necho \"{\\\"ServerURL\\\":\\\"$host\\\",\\\"Username\\\":\\\"me\\\",\\\"Secret\\\":\\\"secret-password\\\"}\"\n"
		if err := os.WriteFile(filepath.Join(bin, "docker-credential-test"), []byte(helper), 0o755); err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(map[string]any{"credHelpers": map[string]string{h.host(): "test"}})
		if err := errors.Join(err, os.WriteFile(filepath.Join(config, "config.json"), data, 0o600)); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
		t.Setenv("DOCKER_CONFIG", config)
		s := newStore(t, image.Config{Transport: h})
		build(t, s, innerdock.ImageDefinition{BaseImage: ref})
	})
	t.Run("push", func(t *testing.T) {
		_, err := s.Push(t.Context(), img.ID, innerdock.ImagePush{Reference: h.host() + "/other:1"}, nil)
		wantCode(t, err, innerdock.CodeUnauthorized, "push")
		if _, err := s.Push(t.Context(), img.ID, innerdock.ImagePush{Reference: h.host() + "/other:1", Credentials: me}, nil); err != nil {
			t.Error(err)
		}
	})
}

// TestRefresh moves a tag.
func TestRefresh(t *testing.T) {
	h := newHub(t)
	s := newStore(t, image.Config{Transport: h})
	ref := h.push("app:1", imageOf(t, v1.Config{}, files{"a": "1"}))
	first := build(t, s, innerdock.ImageDefinition{BaseImage: ref})
	h.push("app:1", imageOf(t, v1.Config{}, files{"a": "2"}))
	if again := build(t, s, innerdock.ImageDefinition{BaseImage: ref}); again.ID != first.ID {
		t.Error("the tag was asked again")
	}
	fresh := build(t, s, innerdock.ImageDefinition{BaseImage: ref, Refresh: true})
	wantFiles(t, s, fresh.ID, files{"a": "2"})
	if again := build(t, s, innerdock.ImageDefinition{BaseImage: ref}); again.ID != fresh.ID {
		t.Error("what the tag became is not remembered")
	}
}
