package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/innerdock/innerdock"
)

// Template is a checkpoint that sandboxes are restored from, as the store keeps it.
type Template struct {
	Key       string         `json:"key"`
	Image     string         `json:"image"` // ID of the root
	Build     string         `json:"build"` // of the runtime and agent that it fits
	Ready     bool           `json:"ready"` // else it is being made, or its maker was killed
	Files     []TemplateFile `json:"files"` // when ready
	CreatedAt time.Time      `json:"created_at"`

	// What its sandboxes have in common, for those who list templates.
	Memory  int64                   `json:"memory"`
	Disk    int64                   `json:"disk"`
	Profile innerdock.DockerProfile `json:"profile,omitempty"`
}

// TemplateFile is one file of a template.
type TemplateFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// PutTemplate stores a template in place of the one with its key.
func (s *Store) PutTemplate(ctx context.Context, t Template) error {
	document, err := json.Marshal(t)
	if err != nil {
		return innerdock.Internal(err, "encoding a template")
	}
	_, err = s.db.ExecContext(ctx, `INSERT INTO templates (key, document) VALUES (?1, ?2)
		ON CONFLICT (key) DO UPDATE SET document = ?2`, t.Key, string(document))
	if err != nil {
		return innerdock.Internal(err, "storing a template")
	}
	return nil
}

// DeleteTemplate forgets a template; one that is not known is no error.
func (s *Store) DeleteTemplate(ctx context.Context, key string) error {
	if _, err := s.db.ExecContext(ctx, `DELETE FROM templates WHERE key = ?`, key); err != nil {
		return innerdock.Internal(err, "forgetting a template")
	}
	return nil
}

// Templates lists all templates, in no order.
func (s *Store) Templates(ctx context.Context) ([]Template, error) {
	return documents[Template](ctx, s, "templates", `SELECT document FROM templates`)
}
