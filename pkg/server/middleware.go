package server

import (
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"path"
	"regexp"
	"runtime/debug"
	"strings"
	"time"

	"github.com/innerdock/innerdock"
)

// Limits of one request.
const (
	maxJSON      = 1 << 20          // bytes of a JSON body
	maxHeader    = 64 << 10         // bytes of all headers
	readPause    = 60 * time.Second // the longest pause in a request's body
	writePause   = 5 * time.Minute  // the longest that a client may leave a reply unread
	leftoverTime = 5 * time.Second  // for the rest of a body that nobody wanted
	leftover     = 32 << 20         // bytes of that rest
)

// clientsRequestID is what a client may call its request.
var clientsRequestID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// requestIDOf is the client's name for its request, or a new one.
func requestIDOf(r *http.Request) string {
	if id := r.Header.Get(innerdock.RequestIDHeader); clientsRequestID.MatchString(id) {
		return id
	}
	return strings.ToLower(rand.Text()[:12])
}

// outermost is what every request goes through first: an ID, limits, headers
// that make a reply inert in a browser, recovery, and a line in the log.
func (s *Server) outermost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := time.Now()
		id := requestIDOf(r)
		r = r.WithContext(innerdock.WithRequestID(r.Context(), id))
		reply := newReply(w)
		body := limitBody(reply, r)
		h := w.Header()
		h.Set(innerdock.RequestIDHeader, id)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
		h.Set("Cache-Control", "no-store")
		defer func() {
			body.leave()
			s.log.LogAttrs(r.Context(), slog.LevelDebug, "request", slog.String("request_id", id),
				slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Int("status", reply.status),
				slog.Int64("bytes", reply.bytes), slog.Duration("took", time.Since(started)))
		}()
		defer s.recover(reply, r)
		next.ServeHTTP(reply, r)
	})
}

// recover turns a bug into an error for one client. A deliberate abort goes on.
func (s *Server) recover(reply *reply, r *http.Request) {
	cause := recover()
	if cause == nil {
		return
	}
	if abort, _ := cause.(error); errors.Is(abort, http.ErrAbortHandler) || reply.status != 0 {
		panic(http.ErrAbortHandler)
	}
	s.log.Error("request panicked", "request_id", innerdock.RequestID(r.Context()), "cause", cause, "stack", string(debug.Stack()))
	s.fail(reply, r, innerdock.Errorf(innerdock.CodeInternal, "this is a bug in innerdock; the server's log has it"))
}

// route finds the request's handler. What there is no handler for gets an Error
// like everything else, and no path is ever redirected.
func (s *Server) route(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" && path.Clean(r.URL.Path) != r.URL.Path {
		s.fail(w, r, innerdock.Errorf(innerdock.CodeNotFound, "nothing at this path; /openapi.yaml lists what there is"))
		return
	}
	if handler, pattern := s.mux.Handler(r); pattern == "" {
		probe := probe{header: http.Header{}}
		handler.ServeHTTP(&probe, r)
		if allowed := probe.header.Get("Allow"); allowed != "" {
			w.Header().Set("Allow", allowed)
			writeJSON(w, http.StatusMethodNotAllowed, s.errorFor(r.Context(),
				innerdock.Errorf(innerdock.CodeInvalid, "%s is not offered here, only %s", r.Method, allowed)))
			return
		}
		s.fail(w, r, innerdock.Errorf(innerdock.CodeNotFound, "nothing at this path; /openapi.yaml lists what there is"))
		return
	}
	s.mux.ServeHTTP(w, r)
}

// probe takes the headers that a handler sets and drops the rest.
type probe struct{ header http.Header }

func (p *probe) Header() http.Header         { return p.header }
func (p *probe) WriteHeader(int)             {}
func (p *probe) Write(b []byte) (int, error) { return len(b), nil }

// reply notes what was answered, and gives each write its own deadline, so that
// streams may last and readers that left do not.
type reply struct {
	http.ResponseWriter
	control *http.ResponseController
	status  int
	bytes   int64
}

func newReply(w http.ResponseWriter) *reply {
	r := &reply{ResponseWriter: w, control: http.NewResponseController(w)}
	_ = r.control.SetWriteDeadline(time.Time{}) // of the connection's previous request
	return r
}

func (r *reply) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *reply) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *reply) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	_ = r.control.SetWriteDeadline(time.Now().Add(writePause))
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// pacedBody gives each read its own deadline: a body may be long, not stalled.
type pacedBody struct {
	io.ReadCloser
	control *http.ResponseController
	over    bool
}

func limitBody(reply *reply, r *http.Request) *pacedBody {
	body := &pacedBody{ReadCloser: r.Body, control: reply.control, over: r.Body == nil || r.Body == http.NoBody}
	if !body.over {
		r.Body = body
	}
	return body
}

func (b *pacedBody) Read(p []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(readPause))
	n, err := b.ReadCloser.Read(p)
	_ = b.control.SetReadDeadline(time.Time{}) // or the wait for the reply would run out
	b.over = b.over || err != nil
	return n, err
}

// Close is for leave to do: a body that is closed early cannot be read on, and
// the decoder of requests closes what it finds too large.
func (b *pacedBody) Close() error { return nil }

// leave reads the rest of a body, within bounds: a client that is still sending
// when its connection ends does not get to read the reply.
func (b *pacedBody) leave() {
	if b.over {
		return
	}
	_ = b.control.SetReadDeadline(time.Now().Add(leftoverTime))
	if _, err := io.CopyN(io.Discard, b.ReadCloser, leftover); errors.Is(err, io.EOF) {
		_ = b.control.SetReadDeadline(time.Time{})
	}
}
