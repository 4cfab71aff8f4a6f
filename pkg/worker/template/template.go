// Package template keeps the checkpoints that sandboxes are restored from: one
// directory each, which is there whole or not at all, and which proves that it
// is what was written before anything is restored from it.
//
// A row in the store comes first and goes last. While a template is made, its
// files lie under a temporary name; what a killed server leaves under one, and
// every directory and row without its counterpart, is removed by the next Open.
package template

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/durable"
	"github.com/innerdock/innerdock/pkg/store"
)

// Rows is what outlives the server; *store.Store is the real one.
type Rows interface {
	PutTemplate(ctx context.Context, t store.Template) error
	DeleteTemplate(ctx context.Context, key string) error
	Templates(ctx context.Context) ([]store.Template, error)
}

// Config is what a Store is made of.
type Config struct {
	Dir   string // absolute, on a disk; the store's alone
	Rows  Rows
	Limit int64  // bytes of all templates together
	Build string // of the runtime and agent: templates of another are removed
	Log   *slog.Logger
}

// Store keeps templates. Its methods may be called concurrently.
type Store struct {
	Config

	mu    sync.Mutex
	ready map[string]*entry
}

// entry is a template that is ready.
type entry struct {
	store.Template
	size int64

	proving sync.Mutex
	proven  map[string]os.FileInfo // by name: files whose content was compared
}

// Open removes what is not whole or fits no longer, and finds the rest.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	s := &Store{Config: cfg, ready: map[string]*entry{}}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, innerdock.Internal(err, "making the templates' directory")
	}
	rows, err := cfg.Rows.Templates(ctx)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		if _, err := os.Stat(s.path(row.Key)); err == nil && row.Ready && row.Build == cfg.Build {
			s.ready[row.Key] = newEntry(row)
			continue
		}
		if err := s.remove(ctx, row.Key); err != nil {
			return nil, err
		}
	}
	if err := durable.Sweep(cfg.Dir, func(key string) bool { return s.ready[key] != nil }); err != nil {
		return nil, innerdock.Internal(err, "removing what is left of a template")
	}
	return s, s.shrink(ctx, cfg.Limit)
}

func newEntry(row store.Template) *entry {
	e := &entry{Template: row, proven: map[string]os.FileInfo{}}
	for _, file := range row.Files {
		e.size += file.Size
	}
	return e
}

func (s *Store) path(key string) string { return filepath.Join(s.Dir, key) }

// Has reports whether there is a template for a key, proven or not.
func (s *Store) Has(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ready[key] != nil
}

// Get returns the template of a key as users see it.
func (s *Store) Get(key string) (innerdock.Template, bool) {
	s.mu.Lock()
	e := s.ready[key]
	s.mu.Unlock()
	if e == nil {
		return innerdock.Template{}, false
	}
	return s.shown(e), true
}

// List returns all templates, oldest first.
func (s *Store) List() []innerdock.Template {
	list := []innerdock.Template{}
	s.mu.Lock()
	for _, e := range s.ready {
		list = append(list, s.shown(e))
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b innerdock.Template) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return list
}

func (s *Store) shown(e *entry) innerdock.Template {
	t := innerdock.Template{ID: e.Key, Image: e.Image, Memory: e.Memory, Disk: e.Disk, Profile: e.Profile,
		Size: e.size, CreatedAt: e.CreatedAt, UsedAt: e.CreatedAt}
	if info, err := os.Stat(s.path(e.Key)); err == nil {
		t.UsedAt = info.ModTime().UTC()
	}
	return t
}

// Find returns the directory of a key's template, or "" if there is none. One
// that is not as it was written is discarded, and there is an error that says so.
func (s *Store) Find(ctx context.Context, key string) (dir string, err error) {
	s.mu.Lock()
	e := s.ready[key]
	s.mu.Unlock()
	if e == nil {
		return "", nil
	}
	if err := e.prove(s.path(key)); err != nil {
		return "", errors.Join(err, s.Discard(ctx, key))
	}
	now := time.Now()
	if err := os.Chtimes(s.path(key), now, now); err != nil { // for shrink
		return "", innerdock.Internal(err, "noting the use of a template")
	}
	return s.path(key), nil
}

// Make has save write a checkpoint into a directory, and keeps it under the key
// of t, whose other fields it fills in. The least used templates make room.
func (s *Store) Make(ctx context.Context, t store.Template, save func(dir string) error) (err error) {
	t.Build, t.Ready, t.CreatedAt = s.Build, false, time.Now().UTC()
	temp := durable.Draft(s.Dir, t.Key)
	if err := s.Discard(ctx, t.Key); err != nil {
		return err
	}
	if err := s.Rows.PutTemplate(ctx, t); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(temp), s.remove(context.WithoutCancel(ctx), t.Key))
		}
	}()
	if err := save(temp); err != nil {
		return err
	}
	e := newEntry(t)
	if err := e.describe(temp); err != nil {
		return innerdock.Internal(err, "reading a new template")
	}
	if e.size > s.Limit {
		return innerdock.Errorf(innerdock.CodeTooLarge,
			"a template of %d MiB is larger than the %d MiB for all of them; start the server with larger --templates", e.size>>20, s.Limit>>20)
	}
	if err := s.shrink(ctx, s.Limit-e.size); err != nil {
		return err
	}
	if err := durable.Publish(temp, s.path(t.Key)); err != nil {
		return innerdock.Internal(err, "keeping a template")
	}
	e.Ready = true
	if err := s.Rows.PutTemplate(ctx, e.Template); err != nil {
		return err
	}
	s.mu.Lock()
	s.ready[t.Key] = e
	s.mu.Unlock()
	return nil
}

// Discard removes a key's template. Who is being restored from it either has
// opened its files already or fails.
func (s *Store) Discard(ctx context.Context, key string) error {
	s.mu.Lock()
	known := s.ready[key] != nil
	delete(s.ready, key)
	s.mu.Unlock()
	if !known {
		return nil
	}
	return s.remove(context.WithoutCancel(ctx), key)
}

// DiscardImages removes the templates of images that are not wanted.
func (s *Store) DiscardImages(ctx context.Context, wanted func(image string) bool) error {
	var keys []string
	s.mu.Lock()
	for key, e := range s.ready {
		if !wanted(e.Image) {
			keys = append(keys, key)
		}
	}
	s.mu.Unlock()
	var failures error
	for _, key := range keys {
		failures = errors.Join(failures, s.Discard(ctx, key))
	}
	return failures
}

// remove removes a template's files and then its row.
func (s *Store) remove(ctx context.Context, key string) error {
	if key == "" || strings.ContainsAny(key, "/.") {
		return innerdock.Errorf(innerdock.CodeInternal, "%q is no key of a template", key)
	}
	if err := os.RemoveAll(s.path(key)); err != nil {
		return innerdock.Internal(err, "removing a template")
	}
	return s.Rows.DeleteTemplate(ctx, key)
}

// shrink discards the templates that were not used for longest, until all of
// them together take no more than limit.
func (s *Store) shrink(ctx context.Context, limit int64) error {
	type used struct {
		key string
		at  time.Time
	}
	var order []used
	var total int64
	sizes := map[string]int64{}
	s.mu.Lock()
	for key, e := range s.ready {
		total += e.size
		sizes[key] = e.size
		at := time.Time{}
		if info, err := os.Stat(s.path(key)); err == nil {
			at = info.ModTime()
		}
		order = append(order, used{key, at})
	}
	s.mu.Unlock()
	slices.SortFunc(order, func(a, b used) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.key, b.key)) })
	for _, oldest := range order {
		if total <= limit {
			return nil
		}
		s.Log.Info("a template is discarded to make room", "template", oldest.key)
		if err := s.Discard(ctx, oldest.key); err != nil {
			return err
		}
		total -= sizes[oldest.key]
	}
	return nil
}
