package worker

import (
	"slices"
	"testing"
	"time"

	"github.com/innerdock/innerdock/pkg/store"
)

// What is over is over by its age or by those that came after it; what is being made,
// a fork's, and what belongs to another sandbox or tenant neither goes nor counts.
func TestExpiredSnapshots(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	row := func(id string, age time.Duration, change ...func(*store.Snapshot)) store.Snapshot {
		snap := store.Snapshot{Tenant: "one", Ready: true}
		snap.ID, snap.Sandbox, snap.CreatedAt = id, "box", now.Add(-age)
		for _, c := range change {
			c(&snap)
		}
		return snap
	}
	until := func(left time.Duration) func(*store.Snapshot) {
		return func(s *store.Snapshot) { s.ExpiresAt = now.Add(left) }
	}
	keep := func(n int) func(*store.Snapshot) { return func(s *store.Snapshot) { s.Keep = n } }
	fork := func(s *store.Snapshot) { s.Fork = true }
	making := func(s *store.Snapshot) { s.Ready = false }
	tenant := func(s *store.Snapshot) { s.Tenant = "two" }
	box := func(s *store.Snapshot) { s.Sandbox = "other" }
	const h = time.Hour

	for name, c := range map[string]struct {
		policy SnapshotPolicy
		rows   []store.Snapshot
		over   []string
		next   time.Duration // from now; 0: never
	}{
		"nothing is bounded":           {rows: []store.Snapshot{row("a", 1000*h)}},
		"a time of its own":            {rows: []store.Snapshot{row("a", h, until(0)), row("b", h, until(2*h)), row("c", h, until(h))}, over: []string{"a"}, next: h},
		"the server's age":             {policy: SnapshotPolicy{MaxAge: 3 * h}, rows: []store.Snapshot{row("a", 3*h), row("b", h)}, over: []string{"a"}, next: 2 * h},
		"the earlier of the two":       {policy: SnapshotPolicy{MaxAge: 3 * h}, rows: []store.Snapshot{row("a", h, until(9*h)), row("b", h, until(h))}, next: h},
		"the last two by the server":   {policy: SnapshotPolicy{Keep: 2}, rows: []store.Snapshot{row("c", h), row("a", 3*h), row("b", 2*h)}, over: []string{"a"}},
		"the last one says how many":   {policy: SnapshotPolicy{Keep: 3}, rows: []store.Snapshot{row("a", 3*h), row("b", 2*h, keep(3)), row("c", h, keep(1))}, over: []string{"b", "a"}},
		"no more than the server":      {policy: SnapshotPolicy{Keep: 1}, rows: []store.Snapshot{row("a", 2*h), row("b", h, keep(5))}, over: []string{"a"}},
		"by age and number":            {policy: SnapshotPolicy{Keep: 1}, rows: []store.Snapshot{row("a", 2*h), row("b", h, until(-h))}, over: []string{"b"}},
		"forks and what is being made": {policy: SnapshotPolicy{Keep: 1, MaxAge: h}, rows: []store.Snapshot{row("a", 0), row("b", 9*h, fork), row("c", 9*h, making)}, next: h},
		"others":                       {policy: SnapshotPolicy{Keep: 1}, rows: []store.Snapshot{row("a", 0), row("b", h, tenant), row("c", h, box)}},
	} {
		t.Run(name, func(t *testing.T) {
			over, next := c.policy.expired(c.rows, now)
			var ids []string
			for _, snap := range over {
				ids = append(ids, snap.ID)
			}
			if !slices.Equal(ids, c.over) {
				t.Errorf("over are %q, not %q", ids, c.over)
			}
			if next.IsZero() != (c.next == 0) || !next.IsZero() && next.Sub(now) != c.next {
				t.Errorf("the next is over at %v, not in %v", next, c.next)
			}
		})
	}
}
