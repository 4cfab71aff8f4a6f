package worker

import (
	"cmp"
	"slices"
	"time"

	"github.com/innerdock/innerdock/pkg/store"
)

// SnapshotPolicy is what a server lets each tenant keep. Zero is no bound, but of
// Count.
type SnapshotPolicy struct {
	Count  int           // at a time; 0: 100
	Bytes  int64         // of all of them
	MaxAge time.Duration // of each
	Keep   int           // of each sandbox: the last ones
}

// retainRetry is when what could not be removed is tried again.
const retainRetry = time.Minute

// retain removes snapshots whose time is over, until the worker closes.
func (w *Worker) retain() {
	for {
		changed := w.snapshotsChanged.Next()
		next, err := w.removeExpired()
		if err != nil && w.ctx.Err() == nil {
			w.Logger.Error("snapshots that are over could not be removed", "error", err)
			next = time.Now().Add(retainRetry)
		}
		var due <-chan time.Time
		if !next.IsZero() {
			due = time.After(time.Until(next))
		}
		select {
		case <-changed:
		case <-due:
		case <-w.ctx.Done():
			return
		}
	}
}

// removeExpired removes the snapshots whose time is over, and returns when that of
// the next one is; zero for never.
func (w *Worker) removeExpired() (next time.Time, err error) {
	rows, err := w.Store.AllSnapshots(w.ctx)
	if err != nil {
		return time.Time{}, err
	}
	over, next := w.Policy.expired(rows, time.Now())
	for _, snap := range over {
		if err := w.removeSnapshot(w.ctx, snap.ID); err != nil {
			return next, err
		}
		w.Logger.Info("a snapshot is over and was removed", "snapshot", snap.ID, "container_id", snap.Sandbox)
	}
	return next, nil
}

// expiry is when a snapshot is over; zero for never.
func (p SnapshotPolicy) expiry(snap store.Snapshot) time.Time {
	at := snap.ExpiresAt
	if end := snap.CreatedAt.Add(p.MaxAge); p.MaxAge > 0 && (at.IsZero() || end.Before(at)) {
		at = end
	}
	return at
}

// expired finds the snapshots that are over: by their age, or because as many later
// ones of the same sandbox are there as are to be kept, which its last one says. next
// is when the first of the others is over by its age; zero for never.
func (p SnapshotPolicy) expired(rows []store.Snapshot, now time.Time) (over []store.Snapshot, next time.Time) {
	type source struct{ tenant, sandbox string }
	keep, have := map[source]int{}, map[source]int{}
	rows = slices.Clone(rows)
	slices.SortFunc(rows, func(a, b store.Snapshot) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.ID, a.ID))
	})
	for _, snap := range rows {
		if !snap.Ready || snap.Fork {
			continue
		}
		end := p.expiry(snap)
		if !end.IsZero() && !end.After(now) {
			over = append(over, snap)
			continue
		}
		from := source{snap.Tenant, snap.Sandbox}
		if snap.Imported {
			from.sandbox = snap.ID // of none that is here
		}
		if have[from]++; have[from] == 1 {
			keep[from] = least(snap.Keep, p.Keep)
		}
		if keep[from] > 0 && have[from] > keep[from] {
			over = append(over, snap)
			continue
		}
		if !end.IsZero() && (next.IsZero() || end.Before(next)) {
			next = end
		}
	}
	return over, next
}

// least is the smaller of two bounds; 0 is none.
func least(a, b int) int {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}
