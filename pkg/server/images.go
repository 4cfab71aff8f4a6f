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

type imageList struct {
	Images []innerdock.Image `json:"images" nullable:"false"`
}

type byImage struct {
	ID string `path:"id" doc:"sha256:…"`
}

func (s *Server) addImages() {
	tags := []string{"images"}
	s.addBuild(tags)
	handle(s, huma.Operation{
		OperationID: "listImages", Method: http.MethodGet, Path: "/v1/images", Tags: tags, Summary: "List images",
		Description: "For the server's own tenant.",
	}, func(ctx context.Context, who principal, _ *nothing) (*bodyOf[imageList], error) {
		if err := who.needOwner(); err != nil {
			return nil, err
		}
		images, err := s.images.List(ctx)
		if images == nil {
			images = []innerdock.Image{}
		}
		return &bodyOf[imageList]{imageList{images}}, err
	})
	handle(s, huma.Operation{
		OperationID: "getImage", Method: http.MethodGet, Path: "/v1/images/{id}", Tags: tags, Summary: "Get an image",
	}, func(ctx context.Context, _ principal, in *byImage) (*bodyOf[innerdock.Image], error) {
		image, err := s.images.Get(ctx, in.ID)
		return &bodyOf[innerdock.Image]{image}, err
	})
	handle(s, huma.Operation{
		OperationID: "removeImage", Method: http.MethodDelete, Path: "/v1/images/{id}", Tags: tags, Summary: "Remove an image",
		Description: "For the server's own tenant.", DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, who principal, in *byImage) (*nothing, error) {
		if err := who.needOwner(); err != nil {
			return nil, err
		}
		return nil, s.images.Remove(ctx, in.ID)
	})
}

// addBuild adds the build of an image. Its handler gets the validated body
// from huma and then writes the stream itself.
func (s *Server) addBuild(tags []string) {
	op := huma.Operation{
		OperationID: "buildImage", Method: http.MethodPost, Path: "/v1/images", Tags: tags, Summary: "Build an image",
		Description: "Server-sent events named progress and log, then image or error; the data of each is a BuildEvent. " +
			"An image that is there already is answered at once, as cached. Errors before the first event are plain errors.",
		Responses: map[string]*huma.Response{"200": s.eventStream("BuildEvent", s.refTo(innerdock.BuildEvent{}), "progress", "log", "image", "error")},
	}
	type output struct{ Body func(huma.Context) }
	handle(s, op, func(ctx context.Context, _ principal, in *bodyOf[innerdock.ImageDefinition]) (*output, error) {
		build := s.startBuild(ctx, in.Body)
		first, ok := build.next(ctx)
		if ok && first.err != nil {
			build.end()
			return nil, first.err
		}
		return &output{func(hc huma.Context) {
			defer build.end()
			hc.SetHeader("Content-Type", "text/event-stream")
			hc.SetStatus(http.StatusOK)
			s.streamBuild(hc, build, first, ok)
		}}, nil
	})
}

// build is a build under way. Its goroutine ends with the last event taken or
// with the request's context, and end waits for it.
type build struct {
	events chan buildEvent
	ticker *time.Ticker
}

type buildEvent struct {
	name  string // "" is a heartbeat
	event innerdock.BuildEvent
	err   error
}

func (s *Server) startBuild(ctx context.Context, def innerdock.ImageDefinition) *build {
	b := &build{events: make(chan buildEvent), ticker: time.NewTicker(heartbeat)}
	send := func(e buildEvent) {
		select {
		case b.events <- e:
		case <-ctx.Done():
		}
	}
	go func() {
		defer close(b.events)
		image, err := s.images.Build(ctx, def, func(name string, e innerdock.BuildEvent) {
			send(buildEvent{name: name, event: e})
		})
		if err != nil {
			send(buildEvent{name: "error", err: err})
			return
		}
		send(buildEvent{name: "image", event: innerdock.BuildEvent{Image: &image}})
	}()
	return b
}

// next waits for an event; it is false when there will be none.
func (b *build) next(ctx context.Context) (buildEvent, bool) {
	select {
	case e, ok := <-b.events:
		return e, ok
	case <-b.ticker.C:
		return buildEvent{}, true
	case <-ctx.Done():
		return buildEvent{}, false
	}
}

// end waits for the goroutine: all events are taken or the context is done.
func (b *build) end() {
	b.ticker.Stop()
	for range b.events { // it closes them
	}
}

func (s *Server) streamBuild(hc huma.Context, b *build, e buildEvent, ok bool) {
	w := hc.BodyWriter().(http.ResponseWriter)
	flush := http.NewResponseController(w).Flush
	for ; ok; e, ok = b.next(hc.Context()) {
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
