package server

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/innerdock/innerdock"
)

// heartbeat is how often a silent stream shows that it lives.
const heartbeat = 15 * time.Second

// emitter sends one event of long work.
type emitter = func(name string, e innerdock.BuildEvent)

// streamed is an answer that is written as the work goes on. Its handler gets
// the validated body from huma and then writes the events itself.
type streamed struct{ Body func(huma.Context) }

// stream runs long work and answers with its events; the last one is what work
// returns, or error. An error before the first event is a plain one.
func (s *Server) stream(ctx context.Context, work func(emitter) (string, innerdock.BuildEvent, error)) (*streamed, error) {
	u := startWork(ctx, work)
	first, ok := u.next(ctx)
	if ok && first.err != nil {
		u.end()
		return nil, first.err
	}
	return &streamed{func(hc huma.Context) {
		defer u.end()
		hc.SetHeader("Content-Type", "text/event-stream")
		hc.SetStatus(http.StatusOK)
		s.write(hc, u, first, ok)
	}}, nil
}

// underway is work under way. Its goroutine ends with the last event taken or
// with the request's context, and end waits for it.
type underway struct {
	events chan workEvent
	ticker *time.Ticker
}

type workEvent struct {
	name  string // "" is a heartbeat
	event innerdock.BuildEvent
	err   error
}

func startWork(ctx context.Context, work func(emitter) (string, innerdock.BuildEvent, error)) *underway {
	u := &underway{events: make(chan workEvent), ticker: time.NewTicker(heartbeat)}
	send := func(e workEvent) {
		select {
		case u.events <- e:
		case <-ctx.Done():
		}
	}
	go func() {
		defer close(u.events)
		last := workEvent{}
		last.name, last.event, last.err = work(func(name string, e innerdock.BuildEvent) {
			send(workEvent{name: name, event: e})
		})
		if last.err != nil {
			last.name, last.event = "error", innerdock.BuildEvent{}
		}
		send(last)
	}()
	return u
}

// next waits for an event; it is false when there will be none.
func (u *underway) next(ctx context.Context) (workEvent, bool) {
	select {
	case e, ok := <-u.events:
		return e, ok
	case <-u.ticker.C:
		return workEvent{}, true
	case <-ctx.Done():
		return workEvent{}, false
	}
}

// end waits for the goroutine: all events are taken or the context is done.
func (u *underway) end() {
	u.ticker.Stop()
	for range u.events { // it closes them
	}
}

func (s *Server) write(hc huma.Context, u *underway, e workEvent, ok bool) {
	w := hc.BodyWriter().(http.ResponseWriter)
	flush := http.NewResponseController(w).Flush
	for ; ok; e, ok = u.next(hc.Context()) {
		line := []byte(": heartbeat\n\n")
		if e.err != nil {
			e.event.Error = s.errorFor(hc.Context(), e.err)
		}
		if e.name != "" {
			data, _ := json.Marshal(e.event) // of plain types
			line = append(append([]byte("event: "+e.name+"\ndata: "), data...), "\n\n"...)
		}
		_, _ = w.Write(line) // a client that left ends the context
		_ = flush()
	}
}
