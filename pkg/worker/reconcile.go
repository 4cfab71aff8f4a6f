package worker

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/runtime"
	"github.com/innerdock/innerdock/pkg/store"
)

// reconcile compares the store with the host: sandboxes that run are adopted,
// those that were being made or ended are ended, and resources that carry this
// server's prefix but belong to no live sandbox are removed.
func (w *Worker) reconcile(ctx context.Context) error {
	records, err := w.Store.Live(ctx)
	if err != nil {
		return err
	}
	states, err := w.Runtime.List(ctx)
	if err != nil {
		return err
	}
	running := map[string]runtime.State{}
	for _, state := range states {
		if state.Status == runtime.Running || state.Status == runtime.Paused {
			running[state.ID] = state
		}
	}
	snapshots, err := w.Store.AllSnapshots(ctx)
	if err != nil {
		return err
	}
	forking := map[string]bool{} // by snapshot
	for _, snap := range snapshots {
		forking[snap.ID] = snap.Fork
	}
	known, onDisk := map[string]bool{}, map[string]bool{}
	for _, rec := range records {
		known[rec.ID] = true
		onDisk[rec.ID] = standingOf(rec) == persisted
		if rec.OnDisk > 0 && !onDisk[rec.ID] { // it was about to go there
			if err := w.vacate(ctx, rec.ID); err != nil {
				return err
			}
		}
		if err := w.takeOver(ctx, rec, running, forking); err != nil {
			return err
		}
	}
	if err := errors.Join(w.openMemories(onDisk), w.removeOrphans(ctx, states, known)); err != nil {
		return err
	}
	return w.prune(ctx)
}

// takeOver adopts one sandbox of an earlier server, or ends it.
func (w *Worker) takeOver(ctx context.Context, rec store.Record, running map[string]runtime.State, forking map[string]bool) error {
	state, alive := running[rec.ID]
	var reason string
	switch {
	case rec.State == innerdock.StateTerminating:
		reason = rec.Reason
	case rec.State == innerdock.StateCreating:
		reason = "the server stopped while the sandbox was being created; create it again"
	case forking[rec.Spec.Snapshot]:
		reason = "the server stopped before all copies of the fork were made; fork again"
	case rec.Internal && rec.Builder == "":
		reason = "the server stopped during the build; build again"
	case standingOf(rec) == persisted:
		return w.parkAgain(ctx, rec)
	case !alive:
		reason = "it ended while the server was away: " + causeOfDeath(rec.ID)
	default:
		err := w.adopt(ctx, rec, state)
		if err == nil || innerdock.CodeOf(err) == innerdock.CodeConflict {
			return err // the server's flags do not fit its sandboxes: nothing is removed for that
		}
		w.Logger.Error("sandbox could not be adopted and is removed", "container_id", rec.ID, "error", err)
		reason = "the server could not take it over after a restart: " + err.Error()
	}
	w.Logger.Info("removing what is left of a sandbox", "container_id", rec.ID, "reason", reason)
	return w.discard(rec.ID, reason)
}

// adopt takes over a running or paused sandbox. Its agent re-dials by itself.
func (w *Worker) adopt(ctx context.Context, rec store.Record, state runtime.State) error {
	policy, err := policyOf(rec.Spec.Network)
	if err != nil {
		return err
	}
	endpoint, err := w.Network.Adopt(ctx, rec.ID, rec.NetIndex, policy)
	if err != nil {
		return err
	}
	s, err := w.register(&rec)
	if err != nil {
		return err
	}
	defer close(s.settled)
	if err := w.watch(s, state.PID); err != nil {
		w.mu.Lock()
		delete(w.live, rec.ID)
		w.mu.Unlock()
		s.abandon()
		return innerdock.Internal(err, "watching the sandbox")
	}
	w.reenact(ctx, s, rec, state.Status)
	s.log.Info("sandbox was taken over from an earlier server")
	w.beginDocker(s, rec, endpoint)
	w.watchIdle(s, rec)
	if rec.Builder != "" {
		w.adoptBuilder(s, rec.Builder)
	}
	return nil
}

// removeOrphans removes resources named after this server that no live record accounts for.
func (w *Worker) removeOrphans(ctx context.Context, states []runtime.State, known map[string]bool) error {
	orphans := map[string]bool{}
	note := func(id string) {
		if strings.HasPrefix(id, w.Prefix) && !known[id] {
			orphans[id] = true
		}
	}
	for _, state := range states {
		note(state.ID)
	}
	attached, err := w.Network.List(ctx)
	if err != nil {
		return err
	}
	for _, id := range attached {
		note(id)
	}
	entries, err := os.ReadDir(w.sandboxesDir())
	if err != nil {
		return innerdock.Internal(err, "listing the sandboxes' directories")
	}
	for _, entry := range entries {
		note(entry.Name())
	}
	var failures error
	for id := range orphans {
		w.Logger.Warn("removing resources of a sandbox that is not known", "container_id", id)
		failures = errors.Join(failures, w.remove(ctx, id))
	}
	return failures
}

// prune forgets the oldest ended sandboxes and their logs.
func (w *Worker) prune(ctx context.Context) error {
	forgotten, err := w.Store.Prune(ctx, keepEnded)
	if err != nil {
		return err
	}
	for _, id := range forgotten {
		if err := os.Remove(w.logFile(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return innerdock.Internal(err, "removing an old log")
		}
	}
	return nil
}
