package store

import (
	"context"
	"database/sql"
	"encoding/json"

	"github.com/innerdock/innerdock"
)

// InsertPool stores a new pool.
func (s *Store) InsertPool(ctx context.Context, p innerdock.Pool) error {
	document, err := json.Marshal(p)
	if err != nil {
		return innerdock.Internal(err, "encoding a pool")
	}
	_, err = s.db.ExecContext(ctx, `INSERT INTO pools (id, created_at, document) VALUES (?, ?, ?)`,
		p.ID, p.CreatedAt.UnixNano(), string(document))
	if err != nil {
		return innerdock.Internal(err, "storing a pool")
	}
	return nil
}

// Pools lists the pools as they were stored, oldest first.
func (s *Store) Pools(ctx context.Context) ([]innerdock.Pool, error) {
	return documents[innerdock.Pool](ctx, s, "pools", `SELECT document FROM pools ORDER BY created_at`)
}

// DeletePool forgets a pool.
func (s *Store) DeletePool(ctx context.Context, id string) error {
	result, err := s.db.ExecContext(ctx, `DELETE FROM pools WHERE id = ?`, id)
	if err != nil {
		return innerdock.Internal(err, "forgetting a pool")
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return innerdock.Errorf(innerdock.CodeNotFound, "no pool %q; `innerdock pool ls` lists them", id)
	}
	return nil
}

// Claim gives a sandbox that waits in a pool to who asked for one: it keeps its
// ID, its network and how it was started, and takes all else from asked. It is
// creating still. A taken name is CodeConflict, and leaves the sandbox to its pool.
func (s *Store) Claim(ctx context.Context, id string, asked Record) (Record, error) {
	var rec Record
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		if err := nameIsFree(ctx, tx, asked.Tenant, asked.Name); err != nil {
			return err
		}
		pooled, err := scan(tx.QueryRowContext(ctx, `SELECT document FROM sandboxes WHERE id = ?`, id), id)
		if err != nil {
			return err
		}
		if pooled.Pool == "" || pooled.State != innerdock.StateCreating {
			return innerdock.Errorf(innerdock.CodeInternal, "sandbox %s waits in no pool", id)
		}
		rec = asked
		rec.ID, rec.NetIndex, rec.Pool, rec.Shape = pooled.ID, pooled.NetIndex, "", pooled.Shape
		rec.Address, rec.Start, rec.Docker = pooled.Address, innerdock.StartPool, pooled.Docker
		document, err := json.Marshal(rec)
		if err != nil {
			return innerdock.Internal(err, "encoding a sandbox")
		}
		_, err = tx.ExecContext(ctx, `UPDATE sandboxes SET tenant = ?, name = ?, internal = 0, created_at = ?, document = ? WHERE id = ?`,
			rec.Tenant, rec.Name, rec.CreatedAt.UnixNano(), string(document), id)
		if err != nil {
			return innerdock.Internal(err, "storing a sandbox")
		}
		return nil
	})
	return rec, err
}
