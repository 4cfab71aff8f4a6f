package innerdock

import (
	"errors"
	"fmt"
	"net/http"
)

// Code tells machines what went wrong. Codes are part of the API: they are
// never renamed, and clients may switch on them.
type Code string

// The codes. The HTTP status of each is in statusOf.
const (
	CodeInvalid            Code = "invalid"              // the request cannot be right, whatever the state
	CodeUnauthorized       Code = "unauthorized"         // no key, or one that is not known
	CodeForbidden          Code = "forbidden"            // a known key that may not do this
	CodeNotFound           Code = "not_found"            // no such thing (or another tenant's)
	CodeConflict           Code = "conflict"             // the state does not allow it, or the name is taken
	CodeTooLarge           Code = "too_large"            // a body or a result over its cap
	CodeExhausted          Code = "exhausted"            // out of addresses, disk, memory or quota
	CodeUnsupported        Code = "unsupported"          // understood, and not offered
	CodeTimeout            Code = "timeout"              // it took longer than was allowed
	CodeUnavailable        Code = "unavailable"          // try again: starting, stopping or unreachable
	CodeInternal           Code = "internal"             // a bug or a broken host; the cause is in the log
	CodeImageNotFound      Code = "image_not_found"      // no registry and no provider has it
	CodeImageBuildFailed   Code = "image_build_failed"   // a step of the definition failed
	CodeSandboxTerminated  Code = "sandbox_terminated"   // the sandbox has ended
	CodeCommandNotFound    Code = "command_not_found"    // no such executable in the sandbox
	CodeDockerDisabled     Code = "docker_disabled"      // created without docker_enabled
	CodeDockerNotInstalled Code = "docker_not_installed" // docker_enabled, but no dockerd in the image
	CodeDockerFailed       Code = "docker_failed"        // dockerd exited, or its set-up failed
	CodeDockerTimeout      Code = "docker_timeout"       // dockerd did not answer in time
)

var statusOf = map[Code]int{
	CodeInvalid:            http.StatusBadRequest,
	CodeUnauthorized:       http.StatusUnauthorized,
	CodeForbidden:          http.StatusForbidden,
	CodeNotFound:           http.StatusNotFound,
	CodeConflict:           http.StatusConflict,
	CodeTooLarge:           http.StatusRequestEntityTooLarge,
	CodeExhausted:          http.StatusInsufficientStorage,
	CodeUnsupported:        http.StatusUnprocessableEntity,
	CodeTimeout:            http.StatusGatewayTimeout,
	CodeUnavailable:        http.StatusServiceUnavailable,
	CodeInternal:           http.StatusInternalServerError,
	CodeImageNotFound:      http.StatusNotFound,
	CodeImageBuildFailed:   http.StatusUnprocessableEntity,
	CodeSandboxTerminated:  http.StatusGone,
	CodeCommandNotFound:    http.StatusUnprocessableEntity,
	CodeDockerDisabled:     http.StatusConflict,
	CodeDockerNotInstalled: http.StatusConflict,
	CodeDockerFailed:       http.StatusBadGateway,
	CodeDockerTimeout:      http.StatusGatewayTimeout,
}

// Status returns the HTTP status that carries c; 500 for a code it does not know.
func (c Code) Status() int {
	if s, ok := statusOf[c]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// Error is the one error type of innerdock. On the wire it is
// {"code":…,"message":…,"request_id":…}; the cause stays in the server's log.
type Error struct {
	Code      Code   `json:"code" doc:"What went wrong, for machines."`
	Message   string `json:"message" doc:"What went wrong and what to do next, for people."`
	RequestID string `json:"request_id,omitempty" doc:"The request, as named in the server's log."`
	Cause     error  `json:"-"`
}

// Errorf makes an Error. The message says what happened and the next step. A
// %w in the format becomes the cause, and its text stays part of the message.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Cause: errors.Unwrap(err)}
}

// Internal wraps an unexpected cause: the user reads what was being done, the
// log reads why it failed.
func Internal(cause error, doing string) *Error {
	return &Error{Code: CodeInternal, Message: doing + " failed; the server's log has the cause", Cause: cause}
}

// Error returns the message, and the cause where the message does not hold it.
func (e *Error) Error() string {
	if e.Code == CodeInternal && e.Cause != nil {
		return e.Message + ": " + e.Cause.Error()
	}
	return e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// CodeOf returns the code of the first Error in err's chain, CodeInternal for
// any other error and "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}
