-- +goose Up
-- A checkpoint that sandboxes are restored from. Its row is there before its
-- first file, and says that it is ready after the last.
CREATE TABLE templates (
    key        TEXT PRIMARY KEY,
    document   TEXT NOT NULL
) STRICT;

-- +goose Down
DROP TABLE templates;
