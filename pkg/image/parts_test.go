package image_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image"
)

// halfway makes the hub send the first half of each large blob and then nothing
// more. sent is called when a half is on its way.
func (h *hub) halfway(sent func()) {
	h.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		whole := httptest.NewRecorder()
		h.registry.ServeHTTP(whole, r)
		if whole.Body.Len() < 1<<20 {
			return false
		}
		w.Header().Set("Content-Length", whole.Header().Get("Content-Length"))
		_, _ = w.Write(whole.Body.Bytes()[:whole.Body.Len()/2])
		_ = http.NewResponseController(w).Flush()
		sent()
		<-r.Context().Done()
		return true
	})
}

// ranges notes which ranges of large blobs the hub is asked for from now on.
func (h *hub) ranges() func() []string {
	var mu sync.Mutex
	var asked []string
	h.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, r.Header.Get("Range"))
		}
		return false
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return asked
	}
}

// A pull that was given up leaves what had come, and a store that is opened later
// asks for the rest alone. What was damaged meanwhile is pulled anew, and what
// nobody comes back for goes.
func TestPartsOutliveAStore(t *testing.T) {
	h := newHub(t)
	content := incompressible(3 << 20)
	ref := h.push("app:1", imageOf(t, v1.Config{}, files{"a": content}))
	def := innerdock.ImageDefinition{BaseImage: ref}

	// half pulls half of the layer into a new store and returns its directory
	// and the part's path.
	half := func(t *testing.T) (dir, part string) {
		t.Helper()
		dir = t.TempDir()
		sent := make(chan struct{}, 1)
		h.halfway(func() { sent <- struct{}{} })
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 1)
		go func() {
			_, err := newStore(t, image.Config{Dir: dir, Transport: h}).Build(ctx, def, nil)
			ended <- err
		}()
		select {
		case <-sent:
		case err := <-ended:
			t.Fatalf("the build ended before its layer came: %v", err)
		}
		part = growing(t, dir, int64(len(content)/2))
		cancel()
		if err := <-ended; err == nil {
			t.Fatal("half a layer was enough")
		}
		wantEmpty(t, dir)
		return dir, part
	}
	again := func(t *testing.T, dir string) (asked []string) {
		t.Helper()
		ranges := h.ranges()
		s := newStore(t, image.Config{Dir: dir, Transport: h})
		wantFiles(t, s, build(t, s, def).ID, files{"a": content})
		wantEmpty(t, dir)
		if left := list(t, dir, "parts"); len(left) > 0 {
			t.Errorf("parts are left: %v", left)
		}
		return ranges()
	}

	t.Run("whole", func(t *testing.T) {
		dir, part := half(t)
		size := sizeOf(t, part)
		if size < int64(len(content)/2) {
			t.Errorf("%d bytes of the layer were kept", size)
		}
		resumed := 0
		for _, r := range again(t, dir) {
			if strings.HasPrefix(r, "bytes=") && !strings.HasPrefix(r, "bytes=0-") {
				resumed++
			}
		}
		if resumed != 1 {
			t.Errorf("%d requests went on where the other store had ended", resumed)
		}
	})
	t.Run("damaged", func(t *testing.T) {
		dir, part := half(t)
		if err := os.WriteFile(part, make([]byte, sizeOf(t, part)), 0o600); err != nil {
			t.Fatal(err)
		}
		again(t, dir)
	})
	t.Run("too long", func(t *testing.T) {
		dir, part := half(t)
		if err := os.Truncate(part, 10<<20); err != nil {
			t.Fatal(err)
		}
		again(t, dir)
	})
	t.Run("old", func(t *testing.T) {
		dir, part := half(t)
		yesterday := time.Now().Add(-25 * time.Hour)
		if err := os.Chtimes(part, yesterday, yesterday); err != nil {
			t.Fatal(err)
		}
		h.intercept(nil)
		s := newStore(t, image.Config{Dir: dir, Transport: h})
		build(t, s, innerdock.ImageDefinition{BaseImage: h.push("other:1", imageOf(t, v1.Config{}, files{"b": "1"}))})
		if left := list(t, dir, "parts"); len(left) > 0 {
			t.Errorf("parts are left after a day: %v", left)
		}
	})
	t.Run("pruned", func(t *testing.T) {
		dir, _ := half(t)
		s := newStore(t, image.Config{Dir: dir, Transport: h})
		if _, err := s.Prune(t.Context(), innerdock.ImagePrune{Keep: 1 << 30}); err != nil {
			t.Fatal(err)
		}
		if left := list(t, dir, "parts"); len(left) != 1 {
			t.Errorf("a prune with a bound left %v", left)
		}
		if _, err := s.Prune(t.Context(), innerdock.ImagePrune{}); err != nil {
			t.Fatal(err)
		}
		if left := list(t, dir, "parts"); len(left) > 0 {
			t.Errorf("a prune of all left %v", left)
		}
	})
}

// growing waits until the only part of a store has a size, and returns its path.
func growing(t *testing.T, dir string, size int64) string {
	t.Helper()
	dir = filepath.Join(dir, "parts")
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err == nil {
		_, err = unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for {
		parts, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range parts {
			if sizeOf(t, part) >= size {
				return part
			}
		}
		if _, err := unix.Read(fd, make([]byte, 1<<16)); err != nil && !errors.Is(err, unix.EINTR) { // it waits for a change
			t.Fatal(err)
		}
	}
}

func sizeOf(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		return 0 // gone meanwhile
	}
	return info.Size()
}
