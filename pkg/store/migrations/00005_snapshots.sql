-- +goose Up
-- A checkpoint of a user's sandbox. Its row is there before its first file, and
-- says that it is ready after the last.
CREATE TABLE snapshots (
    id         TEXT PRIMARY KEY,
    tenant     TEXT NOT NULL,
    ready      INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    document   TEXT NOT NULL
) STRICT;
CREATE INDEX snapshots_tenant ON snapshots (tenant, created_at);

-- +goose Down
DROP TABLE snapshots;
