// Package forward offers a sandbox's Docker and its published ports where
// ordinary programs look for them: on a Unix socket and on addresses of this
// machine. What reaches the sandbox is the caller's.
package forward

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/tunnel"
)

const (
	maxConns    = 256              // at a time, of one listener
	refuseIn    = 10 * time.Second // for a client that is refused to send its request
	maxRefusal  = 64 << 10         // bytes of that request's head
	acceptPause = 50 * time.Millisecond
)

// Docker passes the connections that listener accepts to Docker, until it is
// closed, and returns when all of them have ended. When ctx is done, they are
// cut. A client whose connection cannot be made is told why as the Docker API
// tells its errors.
func Docker(ctx context.Context, listener net.Listener, dial func(context.Context) (net.Conn, error)) {
	accept(ctx, listener, func(ctx context.Context, conn tunnel.Stream, full bool) {
		if full {
			refuse(conn, innerdock.Errorf(innerdock.CodeExhausted, "there are %d connections to this Docker already; close some", maxConns))
			return
		}
		docker, err := dial(ctx)
		if err != nil {
			refuse(conn, err)
			return
		}
		join(ctx, conn, docker)
	})
}

// accept serves connections, each in a goroutine; full says that there are too many.
func accept(ctx context.Context, listener net.Listener, serve func(ctx context.Context, conn tunnel.Stream, full bool)) {
	var serving sync.WaitGroup
	defer serving.Wait()
	room := make(chan struct{}, maxConns)
	for {
		conn, err := listener.Accept()
		if temporary(err) {
			select { // out of file descriptors: nothing tells when there are some
			case <-time.After(acceptPause):
			case <-ctx.Done():
			}
			continue
		}
		if err != nil {
			return
		}
		stream := conn.(tunnel.Stream) // TCP or Unix
		serving.Go(func() {
			defer func() { _ = conn.Close() }()
			select {
			case room <- struct{}{}:
				defer func() { <-room }()
				serve(ctx, stream, false)
			default:
				serve(ctx, stream, true)
			}
		})
	}
}

func temporary(err error) bool {
	known, ok := err.(interface{ Temporary() bool })
	return ok && known.Temporary()
}

// join joins until either ends or ctx is done.
func join(ctx context.Context, conn tunnel.Stream, inside net.Conn) {
	defer context.AfterFunc(ctx, func() { _ = inside.Close(); _ = conn.Close() })()
	_ = tunnel.Join(conn, inside.(tunnel.Stream)) // both ends have seen how it ended
}

// refuse answers the first request on conn with err.
func refuse(conn net.Conn, err error) {
	_ = conn.SetDeadline(time.Now().Add(refuseIn))
	if _, failure := http.ReadRequest(bufio.NewReader(io.LimitReader(conn, maxRefusal))); failure != nil {
		return
	}
	body, _ := json.Marshal(map[string]string{"message": "innerdock: " + err.Error()}) // of plain types
	status := innerdock.CodeOf(err).Status()
	var answer bytes.Buffer
	fmt.Fprintf(&answer, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		status, http.StatusText(status), len(body), body)
	_, _ = conn.Write(answer.Bytes())
}
