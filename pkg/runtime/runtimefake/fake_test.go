package runtimefake_test

import (
	"context"
	"strconv"
	"syscall"
	"testing"

	"github.com/innerdock/innerdock/pkg/runtime"
	"github.com/innerdock/innerdock/pkg/runtime/runtimefake"
	"github.com/innerdock/innerdock/pkg/runtime/runtimetest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSuite(t *testing.T) {
	dir := t.TempDir()
	runtimetest.Suite(t, runtimetest.Subject{
		Runtime: runtimefake.New(guest),
		NewSpec: func(t testing.TB, guest ...string) runtime.Spec {
			return runtimetest.NewSpec(t, dir, dir+"/root.erofs", guest...)
		},
	})
}

// guest does what the real guest does at SIGTERM.
func guest(ctx context.Context, spec runtime.Spec, signals <-chan syscall.Signal) int {
	code := 7
	if spec.Args[1] == "exit" {
		code, _ = strconv.Atoi(spec.Args[2])
	}
	for {
		select {
		case <-ctx.Done():
			return code
		case sig := <-signals:
			if sig == syscall.SIGTERM {
				return code
			}
		}
	}
}
