-- +goose Up
-- A number of sandboxes that are to be ready. Those that are have rows of their
-- own, which name the pool.
CREATE TABLE pools (
    id         TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    document   TEXT NOT NULL
) STRICT;

-- +goose Down
DROP TABLE pools;
