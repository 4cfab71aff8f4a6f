package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
)

// interrupted is why a context ended: a signal.
type interrupted struct{ signal syscall.Signal }

func (i interrupted) Error() string { return "interrupted: " + i.signal.String() }

// errTimeout is why a context ended: --timeout.
var errTimeout = errors.New("timed out")

// watchSignals returns a context that ends with the first signal and one that
// ends with the second. It also keeps a closed standard output from killing
// innerdock before it has cleaned up: writing to it becomes an error.
func watchSignals(parent context.Context) (ctx, abort context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	abort, cancelAbort := context.WithCancel(context.WithoutCancel(parent))
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	quit, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case s := <-signals:
				if ctx.Err() != nil {
					cancelAbort()
				}
				cancel(interrupted{s.(syscall.Signal)})
			case <-quit:
				return
			}
		}
	}()
	return ctx, abort, func() {
		signal.Stop(signals)
		signal.Stop(pipe)
		close(quit)
		<-watched
		cancel(nil)
		cancelAbort()
	}
}

// endOf is the exit code for a context that a signal or a time-out has ended.
func endOf(ctx context.Context) (code int, over bool) {
	if ctx.Err() == nil {
		return 0, false
	}
	cause := context.Cause(ctx)
	var signalled interrupted
	if errors.As(cause, &signalled) {
		return exitSignal + int(signalled.signal), true
	}
	if errors.Is(cause, errTimeout) {
		return exitTimeout, true
	}
	return exitFailure, true
}
