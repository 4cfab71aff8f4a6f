package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"github.com/innerdock/innerdock"
)

// Record is a sandbox as the store keeps it.
type Record struct {
	innerdock.Sandbox
	Tenant   string                `json:"tenant"`
	Internal bool                  `json:"internal"`          // a builder: no tenant sees it
	NetIndex int                   `json:"net_index"`         // which of the pool's subnets it holds while it lives
	Spec     innerdock.SandboxSpec `json:"spec"`              // as it was asked for
	Env      map[string]string     `json:"env"`               // of the image and the request together
	Dir      string                `json:"dir,omitempty"`     // of the image: where processes begin, "" is /workspace
	User     string                `json:"user,omitempty"`    // of the image: whom they run as, "" is root
	Shape    int64                 `json:"shape,omitempty"`   // bytes of memory that the limits inside are made for; 0: by Memory
	Pool     string                `json:"pool,omitempty"`    // that it waits in: nobody has it
	Build    string                `json:"build,omitempty"`   // of the runtime and agent that its memory on the disk fits
	OnDisk   int64                 `json:"on_disk,omitempty"` // bytes of that memory; while it is written, those that it will have at least
	Builder  string                `json:"builder,omitempty"` // the tenant whose Dockerfiles it builds
	Moved    bool                  `json:"moved,omitempty"`   // its checkpoint was taken by another server
}

// Insert stores a new live sandbox and gives it the lowest free subnet from 1
// to capacity, in rec.NetIndex. A taken name is CodeConflict; no free subnet
// is CodeExhausted.
func (s *Store) Insert(ctx context.Context, rec *Record, capacity int) error {
	return s.inTx(ctx, func(tx *sql.Tx) error {
		if err := nameIsFree(ctx, tx, rec.Tenant, rec.Name); err != nil {
			return err
		}
		index, err := freeIndex(ctx, tx, capacity)
		if err != nil {
			return err
		}
		rec.NetIndex = index
		document, err := json.Marshal(rec)
		if err != nil {
			return innerdock.Internal(err, "encoding a sandbox")
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO sandboxes
			(id, tenant, name, live, internal, net_index, created_at, document)
			VALUES (?, ?, ?, 1, ?, ?, ?, ?)`,
			rec.ID, rec.Tenant, rec.Name, rec.Internal, rec.NetIndex, rec.CreatedAt.UnixNano(), string(document))
		if err != nil {
			return innerdock.Internal(err, "storing a sandbox")
		}
		return nil
	})
}

func nameIsFree(ctx context.Context, tx *sql.Tx, tenant, name string) error {
	if name == "" {
		return nil
	}
	var id string
	err := tx.QueryRowContext(ctx,
		`SELECT id FROM sandboxes WHERE tenant = ? AND name = ? AND live = 1`, tenant, name).Scan(&id)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return innerdock.Internal(err, "looking up a name")
	}
	return innerdock.Errorf(innerdock.CodeConflict,
		"the name %q is taken by sandbox %s; terminate it (innerdock rm %s) or choose another name", name, id, name)
}

// freeIndex finds the first gap in the live subnets.
func freeIndex(ctx context.Context, tx *sql.Tx, capacity int) (int, error) {
	rows, err := tx.QueryContext(ctx, `SELECT net_index FROM sandboxes WHERE live = 1 ORDER BY net_index`)
	if err != nil {
		return 0, innerdock.Internal(err, "looking for a free address")
	}
	defer func() { _ = rows.Close() }()
	free := 1
	for rows.Next() {
		var taken int
		if err := rows.Scan(&taken); err != nil {
			return 0, innerdock.Internal(err, "looking for a free address")
		}
		if taken > free {
			break
		}
		free = taken + 1
	}
	if err := rows.Err(); err != nil {
		return 0, innerdock.Internal(err, "looking for a free address")
	}
	if free > capacity {
		return 0, innerdock.Errorf(innerdock.CodeExhausted,
			"all %d addresses of the pool are in use; terminate a sandbox or start the server with a larger --pool", capacity)
	}
	return free, nil
}

// Update changes one sandbox in a transaction: change sees it as it is and
// edits it. Moving to another state must be a legal transition. A sandbox that
// has ended gives back its name and its subnet.
func (s *Store) Update(ctx context.Context, id string, change func(*Record) error) (Record, error) {
	var rec Record
	err := s.inTx(ctx, func(tx *sql.Tx) (err error) {
		rec, err = update(ctx, tx, id, change)
		return err
	})
	return rec, err
}

// Occupy is Update of a sandbox whose memory takes so many bytes of the disk from
// now on. What does not fit into its tenant's quota is CodeExhausted.
func (s *Store) Occupy(ctx context.Context, id string, bytes int64, quota Quota, change func(*Record) error) (Record, error) {
	var rec Record
	err := s.inTx(ctx, func(tx *sql.Tx) (err error) {
		rec, err = update(ctx, tx, id, func(r *Record) error {
			r.OnDisk = bytes
			return change(r)
		})
		if err != nil {
			return err
		}
		return quota.room(ctx, tx, rec.Tenant, id, bytes)
	})
	return rec, err
}

func update(ctx context.Context, tx *sql.Tx, id string, change func(*Record) error) (Record, error) {
	rec, err := scan(tx.QueryRowContext(ctx, `SELECT document FROM sandboxes WHERE id = ?`, id), id)
	if err != nil {
		return rec, err
	}
	before := rec.State
	if err := change(&rec); err != nil {
		return rec, err
	}
	if err := before.To(rec.State); err != nil {
		return rec, err
	}
	document, err := json.Marshal(rec)
	if err != nil {
		return rec, innerdock.Internal(err, "encoding a sandbox")
	}
	_, err = tx.ExecContext(ctx, `UPDATE sandboxes SET live = ?, document = ? WHERE id = ?`,
		!rec.State.Ended(), string(document), id)
	if err != nil {
		return rec, innerdock.Internal(err, "storing a sandbox")
	}
	return rec, nil
}

// Sandbox finds a tenant's sandbox by ID or, among the live ones, by name.
// Builders and other tenants' sandboxes are CodeNotFound.
func (s *Store) Sandbox(ctx context.Context, tenant, idOrName string) (Record, error) {
	row := s.db.QueryRowContext(ctx, `SELECT document FROM sandboxes
		WHERE tenant = ?1 AND internal = 0 AND (id = ?2 OR (name = ?2 AND live = 1))
		ORDER BY id = ?2 DESC LIMIT 1`, tenant, idOrName)
	return scan(row, idOrName)
}

// Sandboxes lists a tenant's sandboxes, newest first; the ended ones only when all is set.
func (s *Store) Sandboxes(ctx context.Context, tenant string, all bool) ([]Record, error) {
	return s.query(ctx, `SELECT document FROM sandboxes
		WHERE tenant = ? AND internal = 0 AND (live = 1 OR ?) ORDER BY created_at DESC`, tenant, all)
}

// Live lists every sandbox that may hold resources of the host, builders included.
func (s *Store) Live(ctx context.Context) ([]Record, error) {
	return s.query(ctx, `SELECT document FROM sandboxes WHERE live = 1 ORDER BY created_at`)
}

// Prune forgets the oldest ended sandboxes beyond the newest keep, and returns
// the IDs of those that it forgot.
func (s *Store) Prune(ctx context.Context, keep int) ([]string, error) {
	rows, err := s.db.QueryContext(ctx, `DELETE FROM sandboxes WHERE id IN (
		SELECT id FROM sandboxes WHERE live = 0 ORDER BY created_at DESC LIMIT -1 OFFSET ?) RETURNING id`, keep)
	if err != nil {
		return nil, innerdock.Internal(err, "forgetting old sandboxes")
	}
	defer func() { _ = rows.Close() }()
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, innerdock.Internal(err, "forgetting old sandboxes")
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		return nil, innerdock.Internal(err, "forgetting old sandboxes")
	}
	return ids, nil
}

func (s *Store) query(ctx context.Context, query string, args ...any) ([]Record, error) {
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, innerdock.Internal(err, "listing sandboxes")
	}
	defer func() { _ = rows.Close() }()
	records := []Record{}
	for rows.Next() {
		rec, err := scan(rows, "")
		if err != nil {
			return nil, err
		}
		records = append(records, rec)
	}
	if err := rows.Err(); err != nil {
		return nil, innerdock.Internal(err, "listing sandboxes")
	}
	return records, nil
}

func scan(row interface{ Scan(...any) error }, asked string) (Record, error) {
	var document string
	err := row.Scan(&document)
	if errors.Is(err, sql.ErrNoRows) {
		return Record{}, innerdock.Errorf(innerdock.CodeNotFound,
			"no sandbox %q; `innerdock ls --all` lists them", asked)
	}
	if err != nil {
		return Record{}, innerdock.Internal(err, "reading a sandbox")
	}
	var rec Record
	if err := json.Unmarshal([]byte(document), &rec); err != nil {
		return Record{}, innerdock.Internal(err, "decoding a sandbox")
	}
	return rec, nil
}
