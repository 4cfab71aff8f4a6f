package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"time"

	"github.com/innerdock/innerdock"
)

// keyPrefix lets people and secret scanners recognise a key.
const keyPrefix = "idk_"

// CreateKey makes an API key of 256 random bits for a tenant. The key itself is
// returned this once; the store keeps its SHA-256.
func (s *Store) CreateKey(ctx context.Context, name, tenant string) (string, innerdock.KeyInfo, error) {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails: see crypto/rand
	key := keyPrefix + base64.RawURLEncoding.EncodeToString(secret)
	hash := sha256.Sum256([]byte(key))
	info := innerdock.KeyInfo{
		ID: hex.EncodeToString(hash[:6]), Name: name, Tenant: tenant, CreatedAt: time.Now().UTC(),
	}
	_, err := s.db.ExecContext(ctx, `INSERT INTO keys (id, tenant, name, hash, created_at) VALUES (?, ?, ?, ?, ?)`,
		info.ID, info.Tenant, info.Name, hash[:], info.CreatedAt.UnixNano())
	if err != nil {
		return "", innerdock.KeyInfo{}, innerdock.Internal(err, "storing a key")
	}
	return key, info, nil
}

// Tenant returns whose key it is; an unknown key is CodeUnauthorized. The look-up
// is by hash, so its time says nothing about any stored key.
func (s *Store) Tenant(ctx context.Context, key string) (string, error) {
	hash := sha256.Sum256([]byte(key))
	var tenant string
	err := s.db.QueryRowContext(ctx, `SELECT tenant FROM keys WHERE hash = ?`, hash[:]).Scan(&tenant)
	if errors.Is(err, sql.ErrNoRows) {
		return "", innerdock.Errorf(innerdock.CodeUnauthorized,
			"this API key is not known; an administrator makes one with `innerdock key create`")
	}
	if err != nil {
		return "", innerdock.Internal(err, "looking up a key")
	}
	return tenant, nil
}

// Keys lists all keys, oldest first.
func (s *Store) Keys(ctx context.Context) ([]innerdock.KeyInfo, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT id, name, tenant, created_at FROM keys ORDER BY created_at`)
	if err != nil {
		return nil, innerdock.Internal(err, "listing keys")
	}
	defer func() { _ = rows.Close() }()
	keys := []innerdock.KeyInfo{}
	for rows.Next() {
		var info innerdock.KeyInfo
		var created int64
		if err := rows.Scan(&info.ID, &info.Name, &info.Tenant, &created); err != nil {
			return nil, innerdock.Internal(err, "listing keys")
		}
		info.CreatedAt = time.Unix(0, created).UTC()
		keys = append(keys, info)
	}
	if err := rows.Err(); err != nil {
		return nil, innerdock.Internal(err, "listing keys")
	}
	return keys, nil
}

// RevokeKey forgets a key by its ID; requests with it fail from now on.
func (s *Store) RevokeKey(ctx context.Context, id string) error {
	result, err := s.db.ExecContext(ctx, `DELETE FROM keys WHERE id = ?`, id)
	if err != nil {
		return innerdock.Internal(err, "revoking a key")
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return innerdock.Errorf(innerdock.CodeNotFound, "no key %q; `innerdock key ls` lists them", id)
	}
	return nil
}
