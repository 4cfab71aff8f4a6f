package image_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image"
)

// A layer on an image makes an image that has both, begins as the first one does,
// and can be exported; one that fails leaves nothing.
func TestCommit(t *testing.T) {
	h := newHub(t)
	dir := t.TempDir()
	s := newStore(t, image.Config{Dir: dir, Transport: h})
	ref := h.push("app:1", imageOf(t, v1.Config{Cmd: []string{"x"}, Env: []string{"A=1"}, User: "1000"}, files{"a": "1", "b": "2"}))
	below := build(t, s, innerdock.ImageDefinition{BaseImage: ref})
	layer := func(w io.Writer) error {
		_, err := w.Write(tarOf(t, files{".wh.a": "", "c": "3"}))
		return err
	}
	img, err := s.Commit(t.Context(), below.ID, "a test", layer)
	if err != nil {
		t.Fatal(err)
	}
	wantFiles(t, s, img.ID, files{"b": "2", "c": "3"})
	if img.ID == below.ID || img.Env["A"] != "1" || img.User != "1000" || img.Base != below.Base || img.Source != "sandbox" {
		t.Errorf("the image is %+v; below it is %+v", img, below)
	}
	history, err := s.History(t.Context(), img.ID)
	if err != nil || len(history) < 2 || history[0].CreatedBy != "a test" {
		t.Errorf("its history is %+v, %v", history, err)
	}
	if again, err := s.Commit(t.Context(), below.ID, "a test", layer); err != nil || again.ID != img.ID || !again.Cached {
		t.Errorf("again it is %+v, %v", again, err)
	}
	var archive bytes.Buffer
	if err := s.Export(t.Context(), img.ID, func() {}, &archive); err != nil {
		t.Error(err)
	}

	broke := errors.New("broke off")
	if _, err := s.Commit(t.Context(), below.ID, "a test", func(io.Writer) error { return broke }); !errors.Is(err, broke) {
		t.Errorf("a layer that breaks off makes %v", err)
	}
	_, err = s.Commit(t.Context(), below.ID, "a test", func(w io.Writer) error { _, err := io.WriteString(w, "no archive"); return err })
	if err == nil {
		t.Error("a layer that is no archive makes an image")
	}
	_, err = s.Commit(t.Context(), "sha256:0", "a test", layer)
	wantCode(t, err, innerdock.CodeImageNotFound)
	wantEmpty(t, dir)
}
