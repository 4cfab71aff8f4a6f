package store_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/store"
)

func open(t *testing.T, path string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func record(id, tenant, name string) *store.Record {
	rec := &store.Record{Tenant: tenant}
	rec.ID, rec.Name, rec.State, rec.CreatedAt = id, name, innerdock.StateCreating, time.Now()
	return rec
}

func insert(t *testing.T, s *store.Store, rec *store.Record) {
	t.Helper()
	if err := s.Insert(t.Context(), rec, 100); err != nil {
		t.Fatal(err)
	}
}

func move(t *testing.T, s *store.Store, id string, states ...innerdock.SandboxState) {
	t.Helper()
	for _, state := range states {
		if _, err := s.Update(t.Context(), id, func(r *store.Record) error { r.State = state; return nil }); err != nil {
			t.Fatal(err)
		}
	}
}

func wantCode(t *testing.T, err error, code innerdock.Code) {
	t.Helper()
	if innerdock.CodeOf(err) != code {
		t.Fatalf("got %v; want an error of code %s", err, code)
	}
}

func TestNamesAreUniqueAmongTheLiveOfATenant(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"))
	insert(t, s, record("aaaa00000001", "one", "web"))
	wantCode(t, s.Insert(t.Context(), record("aaaa00000002", "one", "web"), 100), innerdock.CodeConflict)
	insert(t, s, record("aaaa00000003", "two", "web"))
	insert(t, s, record("aaaa00000004", "one", ""))
	insert(t, s, record("aaaa00000005", "one", ""))

	move(t, s, "aaaa00000001", innerdock.StateRunning, innerdock.StateTerminating)
	wantCode(t, s.Insert(t.Context(), record("aaaa00000006", "one", "web"), 100), innerdock.CodeConflict)
	move(t, s, "aaaa00000001", innerdock.StateTerminated)
	insert(t, s, record("aaaa00000007", "one", "web"))

	got, err := s.Sandbox(t.Context(), "one", "web")
	if err != nil || got.ID != "aaaa00000007" {
		t.Fatalf("the name leads to %s, %v", got.ID, err)
	}
	if old, err := s.Sandbox(t.Context(), "one", "aaaa00000001"); err != nil || old.State != innerdock.StateTerminated {
		t.Fatalf("the ended sandbox is %v, %v", old.State, err)
	}
}

func TestOtherTenantsAndBuildersAreNotFound(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"))
	insert(t, s, record("aaaa00000001", "one", "web"))
	builder := record("aaaa00000002", "one", "")
	builder.Internal = true
	insert(t, s, builder)
	for _, name := range []string{"aaaa00000001", "web"} {
		_, err := s.Sandbox(t.Context(), "two", name)
		wantCode(t, err, innerdock.CodeNotFound)
	}
	_, err := s.Sandbox(t.Context(), "one", "aaaa00000002")
	wantCode(t, err, innerdock.CodeNotFound)
	if list, err := s.Sandboxes(t.Context(), "one", true); err != nil || len(list) != 1 {
		t.Fatalf("one sees %d sandboxes, %v", len(list), err)
	}
	if list, err := s.Sandboxes(t.Context(), "two", true); err != nil || len(list) != 0 {
		t.Fatalf("two sees %d sandboxes, %v", len(list), err)
	}
	if live, err := s.Live(t.Context()); err != nil || len(live) != 2 {
		t.Fatalf("%d live, %v", len(live), err)
	}
}

func TestSubnetsAreTheLowestFree(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"))
	for i := range 3 {
		rec := record(fmt.Sprintf("aaaa0000000%d", i), "one", "")
		if err := s.Insert(t.Context(), rec, 3); err != nil || rec.NetIndex != i+1 {
			t.Fatalf("index %d, %v", rec.NetIndex, err)
		}
	}
	wantCode(t, s.Insert(t.Context(), record("aaaa00000009", "one", ""), 3), innerdock.CodeExhausted)
	move(t, s, "aaaa00000001", innerdock.StateFailed)
	rec := record("aaaa00000009", "one", "")
	if err := s.Insert(t.Context(), rec, 3); err != nil || rec.NetIndex != 2 {
		t.Fatalf("index %d, %v", rec.NetIndex, err)
	}
}

func TestIllegalTransitionsChangeNothing(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"))
	insert(t, s, record("aaaa00000001", "one", ""))
	move(t, s, "aaaa00000001", innerdock.StateFailed)
	_, err := s.Update(t.Context(), "aaaa00000001", func(r *store.Record) error {
		r.State, r.Reason = innerdock.StateRunning, "back from the dead"
		return nil
	})
	wantCode(t, err, innerdock.CodeConflict)
	if rec, err := s.Sandbox(t.Context(), "one", "aaaa00000001"); err != nil || rec.Reason != "" || rec.State != innerdock.StateFailed {
		t.Fatalf("the record is now %+v, %v", rec.Sandbox, err)
	}
	_, err = s.Update(t.Context(), "nosuch", func(*store.Record) error { return nil })
	wantCode(t, err, innerdock.CodeNotFound)
}

func TestConcurrentInsertsShareNothing(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"))
	var wg sync.WaitGroup
	indexes := make([]int, 40)
	errs := make([]error, 40)
	for i := range indexes {
		wg.Go(func() {
			rec := record(fmt.Sprintf("aaaa000000%02d", i), "one", fmt.Sprintf("n%d", i/2))
			errs[i] = s.Insert(t.Context(), rec, 100)
			indexes[i] = rec.NetIndex
		})
	}
	wg.Wait()
	taken, failures := map[int]bool{}, 0
	for i, err := range errs {
		if err != nil {
			wantCode(t, err, innerdock.CodeConflict)
			failures++
			continue
		}
		if taken[indexes[i]] {
			t.Errorf("subnet %d was given out twice", indexes[i])
		}
		taken[indexes[i]] = true
	}
	if failures != 20 {
		t.Errorf("%d of 40 inserts met a taken name; want 20", failures)
	}
}

func TestPruneKeepsTheNewestAndTheLive(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"))
	for i := range 5 {
		insert(t, s, record(fmt.Sprintf("aaaa0000000%d", i), "one", ""))
	}
	for i := range 4 {
		move(t, s, fmt.Sprintf("aaaa0000000%d", i), innerdock.StateFailed)
	}
	gone, err := s.Prune(t.Context(), 2)
	if err != nil || len(gone) != 2 || strings.Join(gone, "") == "" {
		t.Fatalf("forgot %v, %v", gone, err)
	}
	left, err := s.Sandboxes(t.Context(), "one", true)
	if err != nil || len(left) != 3 || left[0].ID != "aaaa00000004" || left[2].ID != "aaaa00000002" {
		t.Fatalf("left %+v, %v", left, err)
	}
}

func TestReopenKeepsAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a dir with ? and %41")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(path, "db")
	first, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Insert(t.Context(), record("aaaa00000001", "one", "web"), 9); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, path).Sandbox(t.Context(), "one", "web"); err != nil {
		t.Fatal(err)
	}
}

func TestKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s := open(t, path)
	key, info, err := s.CreateKey(t.Context(), "ci", "acme")
	if err != nil {
		t.Fatal(err)
	}
	if tenant, err := s.Tenant(t.Context(), key); err != nil || tenant != "acme" {
		t.Fatalf("tenant %q, %v", tenant, err)
	}
	for _, wrong := range []string{"", key[:len(key)-1], key + "A", strings.ToUpper(key)} {
		_, err := s.Tenant(t.Context(), wrong)
		wantCode(t, err, innerdock.CodeUnauthorized)
	}
	for _, file := range []string{path, path + "-wal"} {
		if content, _ := os.ReadFile(file); strings.Contains(string(content), key) {
			t.Errorf("%s holds the key itself", file)
		}
	}
	if keys, err := s.Keys(t.Context()); err != nil || len(keys) != 1 || keys[0] != info {
		t.Fatalf("keys %+v, %v; want %+v", keys, err, info)
	}
	if err := s.RevokeKey(t.Context(), info.ID); err != nil {
		t.Fatal(err)
	}
	_, err = s.Tenant(t.Context(), key)
	wantCode(t, err, innerdock.CodeUnauthorized)
	wantCode(t, s.RevokeKey(t.Context(), info.ID), innerdock.CodeNotFound)
}

func TestACancelledUpdateIsUndone(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"))
	insert(t, s, record("aaaa00000001", "one", ""))
	ctx, cancel := context.WithCancel(t.Context())
	_, err := s.Update(ctx, "aaaa00000001", func(r *store.Record) error {
		r.Reason = "half-done"
		cancel()
		return nil
	})
	if err == nil {
		t.Fatal("the update went through")
	}
	if rec, err := s.Sandbox(t.Context(), "one", "aaaa00000001"); err != nil || rec.Reason != "" {
		t.Fatalf("reason %q, %v", rec.Reason, err)
	}
}
