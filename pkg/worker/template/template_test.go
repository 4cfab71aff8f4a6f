package template_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/innerdock/innerdock/pkg/store"
	"github.com/innerdock/innerdock/pkg/worker/template"
)

// place is a directory of templates with its database.
type place struct {
	dir string
	db  *store.Store
}

func newPlace(t *testing.T) place {
	t.Helper()
	dir := t.TempDir()
	db, err := store.Open(t.Context(), filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return place{filepath.Join(dir, "templates"), db}
}

func (p place) open(t *testing.T, change ...func(*template.Config)) *template.Store {
	t.Helper()
	cfg := template.Config{Dir: p.dir, Rows: p.db, Limit: 1 << 20, Build: "this", Log: slog.New(slog.DiscardHandler)}
	for _, c := range change {
		c(&cfg)
	}
	s, err := template.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// empty fails when a directory or row is left.
func (p place) empty(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(p.dir)
	rows, failure := p.db.Templates(t.Context())
	if err != nil || failure != nil || len(entries) > 0 || len(rows) > 0 {
		t.Errorf("left: %v, %v; %v, %v", entries, rows, err, failure)
	}
}

// write is a save that writes two files.
func write(content string) func(string) error {
	return func(dir string) error {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		return errors.Join(os.WriteFile(filepath.Join(dir, "state"), []byte("state"), 0o600),
			os.WriteFile(filepath.Join(dir, "pages"), []byte(content), 0o600))
	}
}

func add(t *testing.T, s *template.Store, key, content string) {
	t.Helper()
	if err := s.Make(t.Context(), store.Template{Key: key, Image: "image-of-" + key}, write(content)); err != nil {
		t.Fatal(err)
	}
}

// find returns what the template of a key holds, or "" if there is none.
func find(t *testing.T, s *template.Store, key string) string {
	t.Helper()
	dir, err := s.Find(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if dir == "" {
		return ""
	}
	content, err := os.ReadFile(filepath.Join(dir, "pages"))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestATemplateOutlivesTheServerAndIsReplaced(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	if find(t, s, "one") != "" || s.Has("one") {
		t.Error("a template that was not made is found")
	}
	add(t, s, "one", "first")
	add(t, s, "two", "other")
	for _, s := range []*template.Store{s, p.open(t)} {
		if find(t, s, "one") != "first" || find(t, s, "two") != "other" || !s.Has("one") {
			t.Error("a template is not found")
		}
	}
	add(t, s, "one", "second")
	if got := find(t, s, "one"); got != "second" {
		t.Errorf("the new template holds %q", got)
	}
	if err := s.DiscardImages(t.Context(), func(image string) bool { return image == "image-of-two" }); err != nil {
		t.Fatal(err)
	}
	if find(t, s, "one") != "" || find(t, s, "two") != "other" {
		t.Error("not the template of the unwanted image was discarded")
	}
	if err := errors.Join(s.Discard(t.Context(), "two"), s.Discard(t.Context(), "two")); err != nil {
		t.Fatal(err)
	}
	p.empty(t)
}

// Whatever is done to a file, before or after the template was used for the
// first time: it is noticed, said, and the template is gone.
func TestDamageIsNoticed(t *testing.T) {
	spoil := map[string]func(path string) error{
		"truncated": func(path string) error { return os.Truncate(path, 3) },
		"changed":   func(path string) error { return os.WriteFile(path, []byte("pagez"), 0o600) },
		"grown":     func(path string) error { return os.WriteFile(path, []byte("pages and more"), 0o600) },
		"missing":   os.Remove,
		"a link": func(path string) error {
			return errors.Join(os.Rename(path, path+".away"), os.Symlink(path+".away", path))
		},
		"changed, with its old time": func(path string) error {
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			return errors.Join(os.WriteFile(path, []byte("pagez"), 0o600), os.Chtimes(path, info.ModTime(), info.ModTime()))
		},
	}
	for name, spoil := range spoil {
		for _, used := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				p := newPlace(t)
				s := p.open(t)
				add(t, s, "one", "pages")
				s = p.open(t)
				if used && find(t, s, "one") != "pages" {
					t.Error("the template is not found")
				}
				if err := spoil(filepath.Join(p.dir, "one", "pages")); err != nil {
					t.Fatal(err)
				}
				dir, err := s.Find(t.Context(), "one")
				if dir != "" || err == nil || !strings.Contains(err.Error(), "pages of the template") {
					t.Errorf("it is found at %q, %v", dir, err)
				}
				if find(t, s, "one") != "" {
					t.Error("it is found again")
				}
				p.empty(t)
			})
		}
	}
}

// A server that ends while it makes a template leaves nothing that the next one
// would use, whatever it was at.
func TestTheMakingIsInterrupted(t *testing.T) {
	t.Run("while it is saved", func(t *testing.T) {
		p := newPlace(t)
		err := p.open(t).Make(t.Context(), store.Template{Key: "one"}, func(dir string) error {
			if err := write("half")(dir); err != nil {
				return err
			}
			next := p.open(t) // as the next server does, with this one gone
			if next.Has("one") {
				t.Error("half a template is found")
			}
			p.empty(t)
			return errors.New("killed")
		})
		if err == nil {
			t.Error("what was not saved was kept")
		}
		p.empty(t)
	})
	for at := 1; at <= 2; at++ { // 1: before the first file; 2: after the rename
		p := newPlace(t)
		s := p.open(t, func(c *template.Config) { c.Rows = &killedAt{Store: p.db, at: at} })
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("the server lived on at %d", at)
				}
			}()
			_ = s.Make(t.Context(), store.Template{Key: "one"}, write("whole"))
		}()
		if next := p.open(t); next.Has("one") {
			t.Errorf("a template is found that was not made to its end, at %d", at)
		}
		p.empty(t)
	}
	t.Run("its directory is gone", func(t *testing.T) {
		p := newPlace(t)
		add(t, p.open(t), "one", "pages")
		if err := os.RemoveAll(filepath.Join(p.dir, "one")); err != nil {
			t.Fatal(err)
		}
		if p.open(t).Has("one") {
			t.Error("a template without files is found")
		}
		p.empty(t)
	})
}

// killedAt panics in place of a call that stores a row: nothing that Make
// would undo is undone.
type killedAt struct {
	*store.Store
	at int
}

func (k *killedAt) PutTemplate(ctx context.Context, row store.Template) error {
	if k.at--; k.at == 0 {
		panic("killed")
	}
	return k.Store.PutTemplate(ctx, row)
}

func TestTemplatesOfAnotherBuildAreRemoved(t *testing.T) {
	p := newPlace(t)
	add(t, p.open(t), "one", "pages")
	p.open(t, func(c *template.Config) { c.Build = "that" })
	p.empty(t)
}

// The least used make room; what is larger than all may be is refused.
func TestTheLimitOfAllTemplates(t *testing.T) {
	p := newPlace(t)
	s := p.open(t, func(c *template.Config) { c.Limit = 3000 })
	for i, key := range []string{"one", "two"} {
		add(t, s, key, strings.Repeat("x", 1000))
		used := time.Now().Add(time.Duration(i-10) * time.Minute)
		if err := os.Chtimes(filepath.Join(p.dir, key), used, used); err != nil {
			t.Fatal(err)
		}
	}
	find(t, s, "one") // was used later now
	add(t, s, "three", strings.Repeat("x", 1000))
	if !s.Has("one") || s.Has("two") || !s.Has("three") {
		t.Errorf("one %t, two %t, three %t", s.Has("one"), s.Has("two"), s.Has("three"))
	}
	if err := s.Make(t.Context(), store.Template{Key: "four"}, write(strings.Repeat("x", 4000))); err == nil || !strings.Contains(err.Error(), "--templates") {
		t.Errorf("a template that is too large: %v", err)
	}
	if !s.Has("one") || s.Has("four") {
		t.Error("one that is too large has driven out others")
	}
	p.open(t, func(c *template.Config) { c.Limit = 0 })
	p.empty(t)
}
