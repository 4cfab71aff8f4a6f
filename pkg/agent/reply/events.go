package reply

import (
	"encoding/json"
	"net/http"
	"strings"
)

// Events is an answer of server-sent events.
type Events struct {
	w http.ResponseWriter
	c *http.ResponseController
}

// WantsEvents reports whether the client asked for server-sent events.
func WantsEvents(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/event-stream")
}

// NewEvents begins the answer.
func NewEvents(w http.ResponseWriter, status int) *Events {
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(status)
	return &Events{w: w, c: http.NewResponseController(w)}
}

// Send writes one event; Flush makes it leave.
func (e *Events) Send(name string, data any) error {
	body, err := json.Marshal(data)
	if err != nil {
		return err
	}
	b := make([]byte, 0, len(name)+len(body)+16)
	b = append(b, "event: "...)
	b = append(b, name...)
	b = append(b, "\ndata: "...)
	b = append(b, body...)
	b = append(b, "\n\n"...)
	_, err = e.w.Write(b)
	return err
}

// KeepAlive writes a comment, so that nobody takes the connection for dead.
func (e *Events) KeepAlive() error {
	if _, err := e.w.Write([]byte(": still here\n\n")); err != nil {
		return err
	}
	return e.Flush()
}

// Flush sends what was written.
func (e *Events) Flush() error { return e.c.Flush() }
