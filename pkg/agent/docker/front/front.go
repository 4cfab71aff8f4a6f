// Package front is the door to the sandbox's Docker daemon: an HTTP proxy that
// owns the daemon's public socket.
//
// The daemon may start late, die and come again; the door stays, and calls wait
// at it. What gVisor cannot do is refused here, in words, before the daemon half
// does it; what gVisor does not enforce gets a warning. All else passes as it
// came, at once and without a time limit.
package front

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"sync"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/tunnel"
)

const (
	bufferSize   = 128 << 10 // of the upstream connections
	chunkBuffer  = 256 << 10 // of a body in chunks
	socketBuffer = 1 << 20   // of a stream
	idleUpstream = 16        // connections to the daemon that are kept
	idleTime     = time.Minute
	continueTime = time.Second // for the daemon to say that it wants the body
)

// Config says what is behind the door.
type Config struct {
	// Wait waits for a daemon that is starting. Every call waits, also where
	// there is a connection already. An error is what the client is told.
	Wait func(context.Context) error
	// Dial waits as well, and connects to the daemon.
	Dial func(context.Context) (net.Conn, error)
	// NetworksChanged is called when the daemon has made a network whose walls
	// are not the usual ones, before the client is told.
	NetworksChanged func(context.Context) error
}

// Front is the door. It serves the listeners that are given to it until Close, and
// as an http.Handler those who come in by another way.
type Front struct {
	cfg       Config
	transport *http.Transport
	proxy     *httputil.ReverseProxy
	server    *http.Server

	mu      sync.Mutex
	closed  bool
	streams map[io.Closer]struct{} // hijacked, which the server no longer knows
	serving sync.WaitGroup         // listeners and requests
}

// New returns a door.
func New(cfg Config) *Front {
	f := &Front{cfg: cfg, streams: make(map[io.Closer]struct{})}
	quiet := log.New(io.Discard, "", 0) // clients that vanish are no news
	f.transport = &http.Transport{
		DialContext:           func(ctx context.Context, _, _ string) (net.Conn, error) { return cfg.Dial(ctx) },
		DisableCompression:    true,
		MaxIdleConnsPerHost:   idleUpstream,
		IdleConnTimeout:       idleTime,
		ExpectContinueTimeout: continueTime,
		ReadBufferSize:        bufferSize,
		WriteBufferSize:       bufferSize,
	}
	f.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "docker"
			r.Out.URL.RawQuery = r.In.URL.RawQuery // untidy ones too
			r.Out.Host = r.In.Host
		},
		Transport:      f.transport,
		BufferPool:     tunnel.Buffers{},
		ModifyResponse: f.amend,
		ErrorHandler:   func(w http.ResponseWriter, _ *http.Request, err error) { fail(w, err) },
		ErrorLog:       quiet,
	}
	f.server = &http.Server{Handler: f, ErrorLog: quiet}
	return f
}

// Serve serves who connects to l, which it closes in the end.
func (f *Front) Serve(l net.Listener) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		l.Close()
		return
	}
	f.serving.Go(func() { _ = f.server.Serve(l) })
}

// CloseIdle closes the connections to the daemon that nobody uses.
func (f *Front) CloseIdle() { f.transport.CloseIdleConnections() }

// Close ends every connection and returns when nothing of them is left.
func (f *Front) Close() {
	f.mu.Lock()
	f.closed = true
	f.server.Close()
	for stream := range f.streams {
		stream.Close()
	}
	f.mu.Unlock()
	f.serving.Wait()
	f.transport.CloseIdleConnections()
}

// ServeHTTP is one request.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		panic(http.ErrAbortHandler)
	}
	f.serving.Add(1)
	f.mu.Unlock()
	defer f.serving.Done()

	call := callOf(r)
	if call.hijacks(r) {
		f.stream(w, r)
		return
	}
	r, err := call.look(w, r)
	if err == nil {
		err = f.cfg.Wait(r.Context())
	}
	if err != nil {
		fail(w, err)
		return
	}
	if call.bulk(r) {
		f.pass(w, r)
		return
	}
	// The daemon may answer while it still reads: an image that is loaded tells
	// its progress. HTTP/1.0 has no such thing and needs none.
	_ = http.NewResponseController(w).EnableFullDuplex()
	f.proxy.ServeHTTP(w, r)
}

// fail answers with the error, in the form that Docker's clients show.
func fail(w http.ResponseWriter, err error) {
	status, message := http.StatusServiceUnavailable,
		"the Docker daemon went away while it dealt with this call: "+err.Error()+"; it is started again, try once more"
	if known := (*innerdock.Error)(nil); errors.As(err, &known) {
		message = known.Message
		if known.Code == innerdock.CodeUnsupported {
			status = http.StatusNotImplemented
		}
	}
	body, _ := json.Marshal(map[string]string{"message": message}) // of strings: cannot fail
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}

// Listen makes the daemon's public socket at path, as dockerd would: only root
// and the members of group may call. A socket that is there is replaced.
func Listen(path string, gid int) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	// Nobody comes in between: it appears under its name when it is as it
	// should be.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path + ".new", Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	err = errors.Join(os.Chown(path+".new", 0, gid), os.Chmod(path+".new", 0o660), os.Rename(path+".new", path))
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}
