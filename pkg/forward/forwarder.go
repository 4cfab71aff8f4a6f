package forward

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/innerdock/innerdock"
)

const (
	firstPause   = 100 * time.Millisecond // before the news of ports are asked for again
	longestPause = 5 * time.Second
	giveUpAfter  = 10 * time.Minute // without a server
	firstNews    = 10 * time.Second // that a Docker client waits for the published ports
)

// Client reaches a sandbox; *innerdock.Client is the real one.
type Client interface {
	DialDocker(ctx context.Context, idOrName string) (net.Conn, error)
	DialPort(ctx context.Context, idOrName string, port int) (net.Conn, error)
	FollowPorts(ctx context.Context, idOrName string, act func(innerdock.PublishedPorts)) error
	Wait(ctx context.Context, idOrName string) (innerdock.Sandbox, error)
}

// Sandbox forwards a sandbox's Docker to listener, which it closes, and its
// published ports to address, until the sandbox has ended, its server is gone for
// good or ctx is done; it returns why.
func Sandbox(ctx context.Context, c Client, id string, listener net.Listener, address netip.Addr, warn func(error)) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	publisher := NewPublisher(ctx, address, func(ctx context.Context, port int) (net.Conn, error) {
		return c.DialPort(ctx, id, port)
	}, warn)
	defer publisher.Close()
	var parts sync.WaitGroup
	defer parts.Wait()
	news := make(chan struct{}) // closed when the ports are known
	parts.Go(func() {
		known := sync.OnceFunc(func() { close(news) })
		end(retry(ctx, func() error {
			return c.FollowPorts(ctx, id, func(published innerdock.PublishedPorts) { publisher.Set(published); known() })
		}))
	})
	parts.Go(func() {
		end(retry(ctx, func() error {
			sandbox, err := c.Wait(ctx, id)
			if err != nil {
				return err
			}
			return innerdock.Errorf(innerdock.CodeSandboxTerminated, "sandbox %s is %s", sandbox.ID, sandbox.State)
		}))
	})
	parts.Go(func() {
		<-ctx.Done()
		_ = listener.Close()
	})
	Docker(ctx, listener, func(ctx context.Context) (net.Conn, error) {
		timer := time.NewTimer(firstNews)
		defer timer.Stop()
		select { // or the first container would be started before its ports are listened for
		case <-news:
		case <-timer.C:
		case <-ctx.Done():
		}
		return c.DialDocker(ctx, id)
	})
	end(nil)
	return context.Cause(ctx)
}

// retry repeats try while its error may pass, and returns the one that does not.
func retry(ctx context.Context, try func() error) error {
	pause, since := firstPause, time.Now()
	for {
		began := time.Now()
		err := try()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if time.Since(began) > longestPause { // it went well for a while
			pause, since = firstPause, time.Now()
		}
		if !mayPass(err) || time.Since(since) > giveUpAfter {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
		pause = min(2*pause, longestPause)
	}
}

func mayPass(err error) bool {
	var known *innerdock.Error
	if !errors.As(err, &known) {
		return err == nil
	}
	switch known.Code {
	case innerdock.CodeUnavailable, innerdock.CodeExhausted, innerdock.CodeTimeout, innerdock.CodeDockerTimeout:
		return true
	}
	return false
}
