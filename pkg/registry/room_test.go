package registry

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
)

// smallDisk is a directory on a disk of its own, of some bytes.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size+",mode=0700"); err != nil {
		t.Fatalf("mounting a small disk: %v (the tests run as root)", err)
	}
	t.Cleanup(func() { must(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}

// fill leaves no byte free in dir, until the returned function is called.
func fill(t *testing.T, dir string) (empty func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	file, err := os.Create(path)
	must(t, err)
	if _, err := io.Copy(file, zeros{}); err == nil {
		t.Fatal("the disk has no end")
	}
	must(t, file.Close())
	return func() { must(t, os.Remove(path)) }
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestPullsGoOnWhenTheDiskIsFull(t *testing.T) {
	h := newHub(t)
	img := h.push("library/thing", "1", 300<<10)
	_, layer := layerOf(t, img)
	dir := smallDisk(t, "4m")
	m := newMirror(t, Config{Dir: dir, Upstreams: []string{h.server.URL}})
	empty := fill(t, dir)
	m.mustPull("thing:1", img)
	m.mustPull("thing:1", img)
	response, part := m.get(http.MethodGet, "/v2/library/thing/blobs/"+layer, http.Header{"Range": {"bytes=100000-100099"}})
	if response.StatusCode != http.StatusPartialContent || len(part) != 100 {
		t.Errorf("a range: %s, %d bytes", response.Status, len(part))
	}
	if m.cache.store.has(layer) {
		t.Error("a blob was stored on a full disk")
	}
	m.stop()
	again := newMirror(t, Config{Dir: dir, Upstreams: []string{h.server.URL}}) // it opens there, too
	again.mustPull("thing:1", img)
	empty()
	again.mustPull("thing:1", img)
	if !again.cache.store.has(layer) {
		t.Error("nothing is stored although there is room again")
	}
	noHalves(t, dir)
}

// The disk fills in the middle of a download: who follows it gets all of it.
func TestADiskThatFillsDuringADownload(t *testing.T) {
	h := newHub(t)
	img := h.push("library/big", "1", 1<<20)
	_, digest := layerOf(t, img)
	gate := make(chan struct{})
	h.fail(blobsOnly(slow(gate)))
	dir := smallDisk(t, "4m")
	m := newMirror(t, Config{Dir: dir, Upstreams: []string{h.server.URL}})
	ended := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := m.pull("big:1")
			ended <- err
		}()
	}
	waitFor(t, "both to follow a download that has begun", func() bool {
		m.cache.downloads.mu.Lock()
		one := m.cache.downloads.running[bigBlob(digest)]
		both := one != nil && one.followers == 2
		m.cache.downloads.mu.Unlock()
		return both && one.received() > 0
	})
	fill(t, dir)
	close(gate)
	for range 2 {
		if err := <-ended; err != nil {
			t.Errorf("a pull while the disk fills: %v", err)
		}
	}
	if m.cache.store.has(digest) {
		t.Error("a blob was stored on a full disk")
	}
}

// Room on the disk is made from what was not used for longest.
func TestRoomIsMadeOnASmallDisk(t *testing.T) {
	h := newHub(t)
	m := newMirror(t, Config{Dir: smallDisk(t, "4m"), Upstreams: []string{h.server.URL}})
	var layers []string
	for _, tag := range []string{"1", "2", "3", "4", "5", "6"} {
		img := h.push("library/thing", tag, 1<<20)
		m.mustPull("thing:"+tag, img)
		_, layer := layerOf(t, img)
		layers = append(layers, layer)
	}
	if m.cache.store.has(layers[0]) || !m.cache.store.has(layers[5]) {
		t.Error("the oldest did not make room for the newest")
	}
	noHalves(t, m.dir)
}

// What is on its way counts: many large downloads at once do not pass the limit.
func TestDownloadsOnTheirWayCount(t *testing.T) {
	h := newHub(t)
	first, second := h.push("library/big", "1", 600<<10), h.push("library/big", "2", 600<<10)
	gate := make(chan struct{})
	h.fail(blobsOnly(slow(gate)))
	m := newMirror(t, Config{Upstreams: []string{h.server.URL}, MaxBytes: 1 << 20})
	ended := make(chan error, 2)
	pull := func(tag string) {
		_, err := m.pull("big:" + tag)
		ended <- err
	}
	go pull("1")
	waitFor(t, "the first to be reserved", func() bool {
		m.cache.store.mu.Lock()
		defer m.cache.store.mu.Unlock()
		return m.cache.store.reserved > 500<<10
	})
	go pull("2")
	_, layer := layerOf(t, second)
	waitFor(t, "the second to be asked for twice: for the store, and to be passed through", func() bool { return h.count("GET blobs") >= 5 })
	close(gate)
	for range 2 {
		must(t, <-ended)
	}
	if _, one := layerOf(t, first); !m.cache.store.has(one) || m.cache.store.has(layer) {
		t.Error("the second is not the one that was passed through")
	}
	if m.cache.store.reserved != 0 {
		t.Errorf("%d bytes are reserved for nothing", m.cache.store.reserved)
	}
}

func TestWrongBlobsOnTheDiskAreFetchedAgain(t *testing.T) {
	flip := func(t *testing.T, path string) {
		content, err := os.ReadFile(path)
		must(t, err)
		content[len(content)/2] ^= 1
		must(t, os.WriteFile(path, content, 0o600))
	}
	quietly := func(t *testing.T, path string) { // as a failing disk does it
		info, err := os.Stat(path)
		must(t, err)
		flip(t, path)
		must(t, os.Chtimes(path, time.Time{}, info.ModTime()))
	}
	truncate := func(t *testing.T, path string) { must(t, os.Truncate(path, 1000)) }
	remove := func(t *testing.T, path string) { must(t, os.Remove(path)) }
	for name, damage := range map[string]func(*testing.T, string){
		"changed": flip, "changed quietly": quietly, "cut": truncate, "gone": remove,
	} {
		for _, restart := range []bool{false, true} {
			t.Run(name+map[bool]string{true: " before a restart"}[restart], func(t *testing.T) {
				h := newHub(t)
				img := h.push("library/thing", "1", 300<<10)
				_, layer := layerOf(t, img)
				m := newMirror(t, Config{Upstreams: []string{h.server.URL}})
				m.mustPull("thing:1", img)
				damage(t, m.cache.store.path(layer))
				damage(t, m.cache.store.path(mustDigest(t, img)))
				if restart {
					m.stop()
					m = newMirror(t, Config{Dir: m.dir, Upstreams: []string{h.server.URL}})
				} else {
					m.forgetVerified()
				}
				m.mustPull("thing:1", img)
				m.mustPull("thing:1", img)
				if n := h.count("GET blobs"); n != 3 {
					t.Errorf("upstream sent %d blobs; want the layer twice and the configuration once", n)
				}
				noHalves(t, m.dir)
				// Where it cannot be fetched, it is not served.
				damage(t, m.cache.store.path(layer))
				m.forgetVerified()
				h.server.Close()
				if response, _ := m.get(http.MethodGet, "/v2/library/thing/blobs/"+layer, nil); response.StatusCode != http.StatusNotFound {
					t.Errorf("a wrong blob without upstream: %s", response.Status)
				}
			})
		}
	}
}

// forgetVerified lets the time pass in which checked content is taken for right.
func (m *mirror) forgetVerified() {
	m.cache.store.mu.Lock()
	defer m.cache.store.mu.Unlock()
	for _, b := range m.cache.store.blobs {
		b.check.Lock()
		b.verified = time.Time{}
		b.check.Unlock()
	}
}

func TestABrokenIndexIsPutAside(t *testing.T) {
	h := newHub(t)
	img := h.push("library/thing", "1", 1000)
	m := newMirror(t, Config{Upstreams: []string{h.server.URL}})
	m.mustPull("thing:1", img)
	m.stop()
	must(t, os.WriteFile(filepath.Join(m.dir, "index.json"), []byte(`{"manife`), 0o600))
	again := newMirror(t, Config{Dir: m.dir, Upstreams: []string{h.server.URL}})
	again.mustPull("thing:1", img)
}

func TestPruneAndWhatItLeaves(t *testing.T) {
	h := newHub(t)
	seeded, err := random.Image(50<<10, 1)
	must(t, err)
	old, recent, reading := h.push("acme/old", "1", 50<<10), h.push("library/recent", "1", 50<<10), h.push("library/reading", "1", 50<<10)
	m := newMirror(t, Config{Upstreams: []string{h.server.URL}})
	must(t, m.cache.Seed(t.Context(), "seeded", seeded))
	for ref, img := range map[string]v1.Image{"acme/old:1": old, "recent:1": recent, "reading:1": reading, "seeded": seeded} {
		m.mustPull(ref, img)
	}
	m.unused("seeded", seeded, 48*time.Hour)
	m.unused("old", old, 48*time.Hour)
	_, held := layerOf(t, reading)
	open, err := m.cache.store.open(held)
	must(t, err)

	if got := names(m.cache); got != "acme/old:1 reading:1 recent:1 seeded:latest*" {
		t.Errorf("the cache lists %s", got)
	}
	usage := m.cache.Usage()
	if usage.Blobs != 12 || usage.CachedBytes < 150<<10 || usage.SeededBytes < 50<<10 || usage.ReclaimableBytes >= usage.CachedBytes-50<<10 ||
		usage.Downloaded != 6 || usage.Served != 8 || len(usage.Upstreams) != 1 || usage.Upstreams[0].State != "ok" {
		t.Errorf("usage: %+v", usage)
	}
	pruned, err := m.cache.Prune(t.Context(), 24*time.Hour)
	if err != nil || pruned.Blobs != 3 || pruned.Bytes < 50<<10 {
		t.Errorf("what is unused for a day: %+v, %v; want the 3 blobs of old", pruned, err)
	}
	if got := names(m.cache); got != "reading:1 recent:1 seeded:latest*" {
		t.Errorf("then it lists %s", got)
	}
	if _, err := m.cache.Prune(t.Context(), 0); err != nil || !m.cache.store.has(held) || !m.cache.Seeded("seeded") {
		t.Errorf("all: %v; what is being read: %v, what was seeded: %v", err, m.cache.store.has(held), m.cache.Seeded("seeded"))
	}
	must(t, open.Close())
	if got := names(m.cache); got != "seeded:latest*" {
		t.Errorf("at last it lists %s", got)
	}
	marks := 0
	must(t, filepath.WalkDir(filepath.Join(m.dir, "repositories"), func(_ string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			marks++
		}
		return err
	}))
	if marks != 1 {
		t.Errorf("%d marks are left, want that of the blob that was read", marks)
	}
	m.mustPull("recent:1", recent)
}

// unused makes an image one that was not used for a time.
func (m *mirror) unused(_ string, img v1.Image, since time.Duration) {
	m.t.Helper()
	m.cache.store.mu.Lock()
	defer m.cache.store.mu.Unlock()
	for _, digest := range m.cache.store.needs(mustDigest(m.t, img)) {
		then := time.Now().Add(-since)
		m.cache.store.blobs[digest].used = then
		must(m.t, os.Chtimes(m.cache.store.path(digest), then, time.Time{}))
	}
}

func names(c *Cache) string {
	var all []string
	for _, image := range c.Images() {
		name := image.Name
		if image.Seeded {
			name += "*"
		}
		if image.Bytes < 1000 || image.UsedAt.IsZero() || !digestForm.MatchString(image.Digest) {
			name += "?"
		}
		all = append(all, name)
	}
	return strings.Join(all, " ")
}

// What nobody used for the time goes when the cache opens, and then each hour.
func TestOldContentExpires(t *testing.T) {
	h := newHub(t)
	old, recent := h.push("library/old", "1", 50<<10), h.push("library/recent", "1", 50<<10)
	m := newMirror(t, Config{Upstreams: []string{h.server.URL}})
	m.mustPull("old:1", old)
	m.mustPull("recent:1", recent)
	m.unused("old", old, 48*time.Hour)
	m.stop()
	again := newMirror(t, Config{Dir: m.dir, Upstreams: []string{h.server.URL}, MaxAge: 24 * time.Hour})
	waitFor(t, "the old image to go", func() bool { return names(again.cache) == "recent:1" })
}
