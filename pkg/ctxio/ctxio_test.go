package ctxio

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestAReaderEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	r := Reader(ctx, strings.NewReader("before and after"))
	first := make([]byte, len("before"))
	if _, err := io.ReadFull(r, first); err != nil || string(first) != "before" {
		t.Errorf("%q, %v", first, err)
	}
	left := errors.New("the client has left")
	cancel(left)
	if rest, err := io.ReadAll(r); !errors.Is(err, left) || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
}
