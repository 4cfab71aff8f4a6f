package innerdock

import "time"

// DefaultTenant is whom the local Unix socket speaks for.
const DefaultTenant = "default"

// KeyInfo describes an API key; the key itself is shown once, when it is made.
type KeyInfo struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Tenant    string    `json:"tenant"`
	CreatedAt time.Time `json:"created_at"`
}
