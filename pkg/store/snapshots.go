package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"slices"

	"github.com/innerdock/innerdock"
)

// Snapshot is a user's checkpoint as the store keeps it.
type Snapshot struct {
	innerdock.Snapshot
	Tenant   string                  `json:"tenant"`
	Ready    bool                    `json:"ready"`              // else it is being made, or its maker was killed
	Keep     int                     `json:"keep,omitempty"`     // of its sandbox's, with it; 0: all
	Imported bool                    `json:"imported,omitempty"` // its paths are those of another server
	Fork     bool                    `json:"fork,omitempty"`     // it is gone when the copies of its sandbox run
	Build    string                  `json:"build"`              // of the runtime and agent that it fits
	Spec     innerdock.SandboxSpec   `json:"spec"`               // of the sandbox that it was taken of, as are these
	Env      map[string]string       `json:"env"`
	Shape    int64                   `json:"shape"`
	Profile  innerdock.DockerProfile `json:"profile,omitempty"`
}

// Quota is how many snapshots a tenant may have, and how many bytes they may take
// together with the memories of its sandboxes that are paused to the disk; 0 bytes
// are any number.
type Quota struct {
	Count int
	Bytes int64
}

// check refuses a snapshot that does not fit beside a tenant's others. What is
// being made counts, with the size that it will have at least; a fork's does not,
// because it is gone in a moment.
func (q Quota) check(ctx context.Context, tx *sql.Tx, snap Snapshot) error {
	var have int
	err := tx.QueryRowContext(ctx, `SELECT count(*) FROM snapshots WHERE tenant = ? AND id <> ?`, snap.Tenant, snap.ID).Scan(&have)
	switch {
	case err != nil:
		return innerdock.Internal(err, "counting snapshots")
	case have >= q.Count:
		return innerdock.Errorf(innerdock.CodeExhausted, "you have %d snapshots, and %d are allowed; remove some (innerdock snapshot rm)", have, q.Count)
	case snap.Fork:
		return nil
	}
	return q.room(ctx, tx, snap.Tenant, snap.ID, snap.Size)
}

// room refuses bytes on the disk that do not fit beside a tenant's others. The ID is
// that of the snapshot or sandbox that they are for.
func (q Quota) room(ctx context.Context, tx *sql.Tx, tenant, id string, size int64) error {
	if q.Bytes == 0 {
		return nil
	}
	var taken int64
	err := tx.QueryRowContext(ctx, `SELECT
		(SELECT coalesce(sum(iif(document ->> 'fork', 0, document ->> 'size')), 0) FROM snapshots WHERE tenant = ?1 AND id <> ?2) +
		(SELECT coalesce(sum(document ->> 'on_disk'), 0) FROM sandboxes WHERE tenant = ?1 AND id <> ?2 AND live = 1)`, tenant, id).Scan(&taken)
	if err != nil {
		return innerdock.Internal(err, "adding up what snapshots take")
	}
	if taken+size > q.Bytes {
		return innerdock.Errorf(innerdock.CodeExhausted,
			"your snapshots and the sandboxes that are paused to the disk take %d MiB, %d MiB more are needed, and %d MiB are allowed; "+
				"remove snapshots (innerdock snapshot rm), or resume or terminate sandboxes", taken>>20, (size+1<<20-1)>>20, q.Bytes>>20)
	}
	return nil
}

// InsertSnapshot stores one that is to be made, of at least its size. One beyond the
// tenant's quota is CodeExhausted.
func (s *Store) InsertSnapshot(ctx context.Context, snap Snapshot, quota Quota) error {
	document, err := json.Marshal(snap)
	if err != nil {
		return innerdock.Internal(err, "encoding a snapshot")
	}
	return s.inTx(ctx, func(tx *sql.Tx) error {
		if err := quota.check(ctx, tx, snap); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO snapshots (id, tenant, ready, created_at, document) VALUES (?, ?, ?, ?, ?)`,
			snap.ID, snap.Tenant, snap.Ready, snap.CreatedAt.UnixNano(), string(document))
		if err != nil {
			return innerdock.Internal(err, "storing a snapshot")
		}
		return nil
	})
}

// SnapshotReady says that the files of a snapshot are complete, and how many bytes
// they take. One that turns out to be beyond the quota is CodeExhausted.
func (s *Store) SnapshotReady(ctx context.Context, snap Snapshot, quota Quota) error {
	snap.Ready = true
	document, err := json.Marshal(snap)
	if err != nil {
		return innerdock.Internal(err, "encoding a snapshot")
	}
	return s.inTx(ctx, func(tx *sql.Tx) error {
		if err := quota.check(ctx, tx, snap); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE snapshots SET ready = 1, document = ? WHERE id = ?`, string(document), snap.ID); err != nil {
			return innerdock.Internal(err, "storing a snapshot")
		}
		return nil
	})
}

// DeleteSnapshot forgets a snapshot; one that is not known is no error.
func (s *Store) DeleteSnapshot(ctx context.Context, id string) error {
	if _, err := s.db.ExecContext(ctx, `DELETE FROM snapshots WHERE id = ?`, id); err != nil {
		return innerdock.Internal(err, "forgetting a snapshot")
	}
	return nil
}

// Snapshot finds a tenant's snapshot that is ready.
func (s *Store) Snapshot(ctx context.Context, tenant, id string) (Snapshot, error) {
	list, err := s.snapshots(ctx, `SELECT document FROM snapshots WHERE tenant = ? AND id = ? AND ready = 1`, tenant, id)
	if err == nil && len(list) == 0 {
		err = innerdock.Errorf(innerdock.CodeNotFound, "no snapshot %q; `innerdock snapshot ls` lists them", id)
	}
	if err != nil {
		return Snapshot{}, err
	}
	return list[0], nil
}

// Snapshots lists a tenant's snapshots that are ready, newest first. Those of
// forks are not the tenant's to use.
func (s *Store) Snapshots(ctx context.Context, tenant string) ([]Snapshot, error) {
	list, err := s.snapshots(ctx, `SELECT document FROM snapshots WHERE tenant = ? AND ready = 1 ORDER BY created_at DESC`, tenant)
	return slices.DeleteFunc(list, func(snap Snapshot) bool { return snap.Fork }), err
}

// AllSnapshots lists every snapshot, ready or not, in no order.
func (s *Store) AllSnapshots(ctx context.Context) ([]Snapshot, error) {
	return s.snapshots(ctx, `SELECT document FROM snapshots`)
}

func (s *Store) snapshots(ctx context.Context, query string, args ...any) ([]Snapshot, error) {
	return documents[Snapshot](ctx, s, "snapshots", query, args...)
}
