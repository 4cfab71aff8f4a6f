package innerdock

import "context"

// RequestIDHeader names a request: its sender's name for it, or else the server's. It
// is in the reply, in an Error, in the server's log, and in the sandboxes that it made.
const RequestIDHeader = "Innerdock-Request-Id"

type requestIDKey struct{}

// WithRequestID is ctx within the request id.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

// RequestID names the request that ctx is within; "" is none.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}
