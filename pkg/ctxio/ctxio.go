// Package ctxio lets a copy end with its context.
package ctxio

import (
	"context"
	"io"
)

// Reader reads from r until the context is done, and then fails with its cause. A
// read that is under way is not interrupted.
func Reader(ctx context.Context, r io.Reader) io.Reader { return reader{ctx, r} }

type reader struct {
	ctx context.Context
	r   io.Reader
}

func (u reader) Read(p []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	return u.r.Read(p)
}
