package ports

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"regexp"
	"sync"

	"github.com/innerdock/innerdock/pkg/tunnel"
)

// starts are the calls after which ports may be published that were not before.
var starts = regexp.MustCompile(`^(/v[0-9.]+)?/containers/[^/]+/(start|restart)$`)

// api is the Docker API for those outside: the door's, and the answer to a
// container's start is held until whoever forwards published ports has heard of
// them. A client that runs a container and connects at once must find the port.
type api struct {
	door      http.Handler
	published *published
}

// serve speaks HTTP with the client at the other end of conn until it leaves.
func (a *api) serve(ctx context.Context, conn *tunnel.Conn) {
	var handling sync.WaitGroup
	defer handling.Wait()
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handling.Add(1)
			defer handling.Done()
			a.ServeHTTP(w, r)
		}),
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    log.New(io.Discard, "", 0), // clients that vanish are no news
	}
	_ = server.Serve(&single{conn: &noted{Conn: conn, closed: make(chan struct{})}})
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost && starts.MatchString(r.URL.Path) {
		w = &held{ResponseWriter: w, until: func() { a.published.sync(r.Context()) }}
	}
	a.door.ServeHTTP(w, r)
}

// held delays a success.
type held struct {
	http.ResponseWriter
	until func()
	once  sync.Once
}

// Unwrap is for http.ResponseController.
func (h *held) Unwrap() http.ResponseWriter { return h.ResponseWriter }

func (h *held) WriteHeader(status int) {
	if status/100 == 2 {
		h.once.Do(h.until)
	}
	h.ResponseWriter.WriteHeader(status)
}

// single is a listener that has one connection, and ends with it.
type single struct {
	conn  *noted
	taken bool
}

// Accept is called by one goroutine.
func (s *single) Accept() (net.Conn, error) {
	if !s.taken {
		s.taken = true
		return s.conn, nil
	}
	<-s.conn.closed
	return nil, io.EOF
}

func (s *single) Close() error   { return nil }
func (s *single) Addr() net.Addr { return s.conn.LocalAddr() }

// noted tells when it is closed.
type noted struct {
	*tunnel.Conn
	closed chan struct{}
	once   sync.Once
}

func (n *noted) Close() error {
	n.once.Do(func() { close(n.closed) })
	return n.Conn.Close()
}
