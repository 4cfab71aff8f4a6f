// Package reply writes the agent's answers: JSON, server-sent events and
// errors, as the public API shows them.
package reply

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/innerdock/innerdock"
)

// LongestPoll caps how long a request may wait for something to happen.
const LongestPoll = time.Minute

// JSON answers with v.
func JSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		Error(w, innerdock.Internal(err, "encoding the answer"))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}

// Error answers with err; the cause of what is not an innerdock.Error, and of
// an internal one, becomes part of the message, since the agent has no log that
// anybody reads and its reader is the server.
func Error(w http.ResponseWriter, err error) {
	e := &innerdock.Error{Code: innerdock.CodeInternal, Message: err.Error()}
	if known := (*innerdock.Error)(nil); errors.As(err, &known) {
		e = &innerdock.Error{Code: known.Code, Message: known.Error()}
	}
	JSON(w, e.Code.Status(), e)
}

// Handler is an http.Handler that may fail before it has answered.
type Handler func(w http.ResponseWriter, r *http.Request) error

// ServeHTTP answers with the error, if any.
func (h Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := h(w, r); err != nil {
		Error(w, err)
	}
}

// Bool reads a parameter of the query; absent is false.
func Bool(r *http.Request, name string) (bool, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(s)
	if err != nil {
		return false, innerdock.Errorf(innerdock.CodeInvalid, "%s=%q is not true or false", name, s)
	}
	return b, nil
}

// Offset reads a parameter of the query that is a place in a stream, in bytes.
func Offset(r *http.Request, name string) (int64, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, innerdock.Errorf(innerdock.CodeInvalid, "%s=%q is not an offset in bytes (0 or more)", name, s)
	}
	return n, nil
}

// Wait reads a parameter of the query that is a time in seconds, LongestPoll at
// most; absent is none.
func Wait(r *http.Request, name string) (time.Duration, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return 0, nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f >= 0) {
		return 0, innerdock.Errorf(innerdock.CodeInvalid, "%s=%q is not a number of seconds (0 or more)", name, s)
	}
	return time.Duration(min(f, LongestPoll.Seconds()) * float64(time.Second)), nil
}

// Body decodes a JSON body of at most limit bytes.
func Body(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit)).Decode(v)
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return innerdock.Errorf(innerdock.CodeTooLarge, "the body is over %d bytes", limit)
	}
	if err != nil {
		return innerdock.Errorf(innerdock.CodeInvalid, "the body is not the JSON that is expected here: %v", err)
	}
	return nil
}

// Until waits for done, at most d and no longer than ctx. It reports whether
// done came.
func Until(ctx context.Context, d time.Duration, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
	}
	if d <= 0 {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}
