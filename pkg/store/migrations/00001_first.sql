-- +goose Up
-- A sandbox is one document; the columns beside it are those that queries and
-- the unique indexes need.
CREATE TABLE sandboxes (
    id         TEXT PRIMARY KEY,
    tenant     TEXT NOT NULL,
    name       TEXT NOT NULL,
    live       INTEGER NOT NULL, -- 1 until every resource of the host is gone
    internal   INTEGER NOT NULL, -- 1: a builder, never shown to a tenant
    net_index  INTEGER NOT NULL,
    created_at INTEGER NOT NULL, -- Unix nanoseconds
    document   TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX sandboxes_live_name ON sandboxes (tenant, name) WHERE live = 1 AND name <> '';
CREATE UNIQUE INDEX sandboxes_live_index ON sandboxes (net_index) WHERE live = 1;
CREATE INDEX sandboxes_tenant ON sandboxes (tenant, live, created_at);

CREATE TABLE keys (
    id         TEXT PRIMARY KEY,
    tenant     TEXT NOT NULL,
    name       TEXT NOT NULL,
    hash       BLOB NOT NULL UNIQUE, -- SHA-256 of the key; the key itself is not stored
    created_at INTEGER NOT NULL
) STRICT;

-- +goose Down
DROP TABLE keys;
DROP TABLE sandboxes;
