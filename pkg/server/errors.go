package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"github.com/innerdock/innerdock"
)

// failure is an innerdock.Error as huma wants errors to be. Its JSON and its
// schema are the Error's.
type failure struct {
	err *innerdock.Error
}

func (f *failure) Error() string                { return f.err.Error() }
func (f *failure) Unwrap() error                { return f.err }
func (f *failure) GetStatus() int               { return f.err.Code.Status() }
func (f *failure) MarshalJSON() ([]byte, error) { return json.Marshal(f.err) }

// Schema refers to Error in the document's components.
func (f *failure) Schema(r huma.Registry) *huma.Schema {
	return r.Schema(reflect.TypeFor[innerdock.Error](), true, "")
}

// useFailures replaces huma's error type, which is a variable of that package.
var useFailures = sync.OnceFunc(func() {
	huma.NewErrorWithContext = func(ctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
		refusal := refusalOf(status, msg, errs)
		if ctx != nil {
			refusal.RequestID = innerdock.RequestID(ctx.Context())
		}
		return &failure{refusal}
	}
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		return huma.NewErrorWithContext(nil, status, msg, errs...)
	}
})

// refusalOf turns huma's findings about a request into an Error that names each field.
func refusalOf(status int, msg string, errs []error) *innerdock.Error {
	var tooLarge *http.MaxBytesError
	for _, err := range errs {
		if errors.As(err, &tooLarge) {
			return tooLargeError(tooLarge.Limit)
		}
	}
	if status == http.StatusRequestEntityTooLarge {
		return tooLargeError(maxJSON)
	}
	findings := make([]string, 0, len(errs))
	for _, err := range errs {
		findings = append(findings, finding(err))
	}
	if len(findings) > 0 {
		msg = strings.Join(findings, "; ")
	}
	return innerdock.Errorf(innerdock.CodeInvalid, "%s", msg)
}

func tooLargeError(limit int64) *innerdock.Error {
	return innerdock.Errorf(innerdock.CodeTooLarge, "the request's body is larger than %d bytes", limit)
}

// finding is one validation error as "field: what was expected".
func finding(err error) string {
	var detail *huma.ErrorDetail
	if !errors.As(err, &detail) {
		return err.Error()
	}
	field := strings.TrimPrefix(strings.TrimPrefix(detail.Location, "body."), "query.")
	switch {
	case field == "body":
		return "the body is not as expected: " + detail.Message
	case field == "":
		return detail.Message
	}
	switch detail.Value.(type) {
	case bool, float64, int:
		return fmt.Sprintf("%s: %s, not %v", field, detail.Message, detail.Value)
	}
	return field + ": " + detail.Message
}

// errorFor makes err what a client may see, and logs what it may not.
func (s *Server) errorFor(ctx context.Context, err error) *innerdock.Error {
	var known *innerdock.Error
	if !errors.As(err, &known) {
		known = innerdock.Internal(err, "the request")
	}
	if known.Code == innerdock.CodeInternal && known.Cause != nil && ctx.Err() == nil {
		s.log.LogAttrs(ctx, slog.LevelError, "request failed",
			slog.String("request_id", innerdock.RequestID(ctx)), slog.Any("error", known))
	}
	shown := *known
	shown.RequestID = innerdock.RequestID(ctx)
	return &shown
}

// fail answers with err.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	shown := s.errorFor(r.Context(), err)
	if shown.Code == innerdock.CodeUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	writeJSON(w, shown.Code.Status(), shown)
}

// writeJSON answers with value. An error of the connection is the reader's loss.
func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value)
}
