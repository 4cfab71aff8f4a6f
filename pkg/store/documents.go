package store

import (
	"context"
	"encoding/json"

	"github.com/innerdock/innerdock"
)

// documents returns what a query of the column document finds, decoded; never nil.
// what names the rows in errors.
func documents[T any](ctx context.Context, s *Store, what, query string, args ...any) ([]T, error) {
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, innerdock.Internal(err, "listing "+what)
	}
	defer func() { _ = rows.Close() }()
	list := []T{}
	for rows.Next() {
		var document string
		var one T
		if err := rows.Scan(&document); err != nil {
			return nil, innerdock.Internal(err, "listing "+what)
		}
		if err := json.Unmarshal([]byte(document), &one); err != nil {
			return nil, innerdock.Internal(err, "decoding "+what)
		}
		list = append(list, one)
	}
	if err := rows.Err(); err != nil {
		return nil, innerdock.Internal(err, "listing "+what)
	}
	return list, nil
}
