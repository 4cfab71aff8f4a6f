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

// A snapshot is its tenant's, counts from the moment that it is begun, and can be
// used when it is ready.
func TestSnapshots(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"))
	snapshot := func(id, tenant string) store.Snapshot {
		snap := store.Snapshot{Tenant: tenant}
		snap.ID, snap.CreatedAt = id, time.Now()
		return snap
	}
	one := store.Quota{Count: 1}
	first := snapshot("first", "one")
	if err := s.InsertSnapshot(t.Context(), first, one); err != nil {
		t.Fatal(err)
	}
	wantCode(t, s.InsertSnapshot(t.Context(), snapshot("second", "one"), one), innerdock.CodeExhausted)
	_, err := s.Snapshot(t.Context(), "one", "first")
	wantCode(t, err, innerdock.CodeNotFound)
	first.Size = 7
	if err := s.SnapshotReady(t.Context(), first, one); err != nil {
		t.Fatal(err)
	}
	if found, err := s.Snapshot(t.Context(), "one", "first"); err != nil || !found.Ready || found.Size != 7 {
		t.Errorf("%+v, %v", found, err)
	}
	_, err = s.Snapshot(t.Context(), "two", "first")
	wantCode(t, err, innerdock.CodeNotFound)
	if list, err := s.Snapshots(t.Context(), "two"); err != nil || len(list) > 0 {
		t.Errorf("another tenant sees %+v, %v", list, err)
	}
	if err := s.InsertSnapshot(t.Context(), snapshot("third", "two"), one); err != nil {
		t.Fatal(err)
	}
	if all, err := s.AllSnapshots(t.Context()); err != nil || len(all) != 2 {
		t.Errorf("%+v, %v", all, err)
	}
	if err := s.DeleteSnapshot(t.Context(), "first"); err != nil {
		t.Fatal(err)
	}
	if list, err := s.Snapshots(t.Context(), "one"); err != nil || len(list) > 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

// The bytes of a tenant's snapshots are bounded from the moment that one is begun, by
// what it will take at least, and again by what it takes. A fork's are not.
func TestSnapshotBytes(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"))
	quota := store.Quota{Count: 10, Bytes: 100}
	snapshot := func(id, tenant string, size int64, fork bool) store.Snapshot {
		snap := store.Snapshot{Tenant: tenant, Fork: fork}
		snap.ID, snap.Size, snap.CreatedAt = id, size, time.Now()
		return snap
	}
	insert := func(snap store.Snapshot) error { return s.InsertSnapshot(t.Context(), snap, quota) }
	for _, snap := range []store.Snapshot{snapshot("a", "one", 60, false), snapshot("b", "one", 20, false), snapshot("f", "one", 500, true), snapshot("o", "two", 90, false)} {
		if err := insert(snap); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, insert(snapshot("c", "one", 21, false)), innerdock.CodeExhausted)
	wantCode(t, s.SnapshotReady(t.Context(), snapshot("b", "one", 41, false), quota), innerdock.CodeExhausted)
	if _, err := s.Snapshot(t.Context(), "one", "b"); innerdock.CodeOf(err) != innerdock.CodeNotFound {
		t.Errorf("what is beyond the quota is ready: %v", err)
	}
	if err := s.SnapshotReady(t.Context(), snapshot("b", "one", 40, false), quota); err != nil {
		t.Error(err)
	}
	if err := s.DeleteSnapshot(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := insert(snapshot("c", "one", 60, false)); err != nil {
		t.Error(err)
	}
}

// What a sandbox that is paused to the disk takes there counts with the snapshots,
// for as long as it does.
func TestMemoriesCountInTheQuota(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"))
	quota := store.Quota{Count: 10, Bytes: 100}
	for _, id := range []string{"a", "b"} {
		if err := s.Insert(t.Context(), record(id, "one", ""), 9); err != nil {
			t.Fatal(err)
		}
	}
	occupy := func(id string, bytes int64) error {
		_, err := s.Occupy(t.Context(), id, bytes, quota, func(*store.Record) error { return nil })
		return err
	}
	snap := store.Snapshot{Tenant: "one"}
	snap.ID, snap.Size = "s", 30
	for _, err := range []error{occupy("a", 40), occupy("a", 60), s.InsertSnapshot(t.Context(), snap, quota)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, occupy("b", 11), innerdock.CodeExhausted)
	snap.Size = 41
	wantCode(t, s.SnapshotReady(t.Context(), snap, quota), innerdock.CodeExhausted)
	if rec, err := s.Sandbox(t.Context(), "one", "b"); err != nil || rec.OnDisk != 0 {
		t.Errorf("what was refused counts: %+v, %v", rec, err)
	}
	if err := occupy("a", 0); err != nil {
		t.Fatal(err)
	}
	if err := occupy("b", 70); err != nil {
		t.Error(err)
	}
}

// A sandbox of a pool is given to one who asks, once; a name that is taken leaves
// it where it is.
func TestClaims(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"))
	pooled := record("pooled", "-pool", "")
	pooled.Internal, pooled.Pool, pooled.Shape, pooled.Address = true, "p", 1<<30, "10.0.0.2"
	insert(t, s, pooled)
	insert(t, s, record("other", "a", "taken"))
	asked := *record("asked", "a", "taken")
	_, err := s.Claim(t.Context(), "pooled", asked)
	wantCode(t, err, innerdock.CodeConflict)

	asked.Name, asked.Env = "mine", map[string]string{"A": "1"}
	_, err = s.Sandbox(t.Context(), "a", "pooled")
	wantCode(t, err, innerdock.CodeNotFound)
	rec, err := s.Claim(t.Context(), "pooled", asked)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := s.Sandbox(t.Context(), "a", "mine")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []store.Record{rec, stored} {
		if r.ID != "pooled" || r.NetIndex != pooled.NetIndex || r.Internal || r.Pool != "" || r.Shape != pooled.Shape ||
			r.Address != pooled.Address || r.Start != innerdock.StartPool || r.State != innerdock.StateCreating || r.Env["A"] != "1" {
			t.Errorf("claimed as %+v", r)
		}
	}
	asked.Name = "second"
	_, err = s.Claim(t.Context(), "pooled", asked)
	wantCode(t, err, innerdock.CodeInternal)
	_, err = s.Claim(t.Context(), "other", asked) // is nobody's to claim
	wantCode(t, err, innerdock.CodeInternal)
}

func TestPools(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"))
	for i, id := range []string{"one", "two"} {
		if err := s.InsertPool(t.Context(), innerdock.Pool{ID: id, Size: i + 1, CreatedAt: time.Unix(int64(i), 0)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.DeletePool(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, s.DeletePool(t.Context(), "one"), innerdock.CodeNotFound)
	if pools, err := s.Pools(t.Context()); err != nil || len(pools) != 1 || pools[0].ID != "two" || pools[0].Size != 2 {
		t.Errorf("pools: %+v, %v", pools, err)
	}
}
