// Package store keeps what must outlive the server: every sandbox, written
// before its first resource is made on the host, and the API keys. It is one
// SQLite file in WAL mode with one connection, so each method is one
// transaction and sees all before it.
package store

import (
	"context"
	"database/sql"
	"embed"
	"io/fs"
	"log/slog"
	"net/url"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the "sqlite" driver

	"github.com/innerdock/innerdock"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Store is the open database. Its methods may be called concurrently.
type Store struct {
	db *sql.DB
}

// Open opens the database file at path, makes it if it is missing, and brings
// its schema up to date.
func Open(ctx context.Context, path string) (*Store, error) {
	query := url.Values{"_pragma": {
		"journal_mode(WAL)",
		"synchronous(FULL)",
		"busy_timeout(5000)",
		"foreign_keys(ON)",
	}, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", "file:"+url.PathEscape(path)+"?"+query.Encode())
	if err != nil {
		return nil, innerdock.Internal(err, "opening the database "+path)
	}
	db.SetMaxOpenConns(1)
	if err := migrate(ctx, db); err != nil {
		_ = db.Close()
		return nil, innerdock.Internal(err, "preparing the database "+path)
	}
	return &Store{db: db}, nil
}

func migrate(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, files,
		goose.WithSlog(slog.New(slog.DiscardHandler)))
	if err != nil {
		return err
	}
	_, err = provider.Up(ctx)
	return err
}

// Close closes the database.
func (s *Store) Close() error { return s.db.Close() }

// inTx runs fn in one transaction, which is undone when fn fails.
func (s *Store) inTx(ctx context.Context, fn func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return innerdock.Internal(err, "starting a transaction")
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return innerdock.Internal(err, "committing to the database")
	}
	return nil
}
