package ports

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/tunnel"
)

const (
	maxWatchers = 16
	maxList     = 16 << 20 // bytes of Docker's list of containers
	listTimeout = 10 * time.Second
	hearTimeout = 5 * time.Second // for a watcher to say that it has heard
	eventsPause = 200 * time.Millisecond
)

// published knows the ports that containers publish, while somebody asks.
type published struct {
	docker func(ctx context.Context) (net.Conn, error)

	looking sync.Mutex // one look at a time

	mu       sync.Mutex
	current  innerdock.PublishedPorts
	watchers map[*watcher]struct{}
}

// watcher is somebody who forwards published ports.
type watcher struct {
	news  chan struct{} // there is something to tell
	heard int64         // the newest version that it has acted on
	acted chan struct{} // closed and made anew when heard changes
}

// serve tells the watcher at the other end of conn the published ports and every
// change, one JSON object a line, and reads in the same form what it has heard.
func (p *published) serve(ctx context.Context, conn *tunnel.Conn) {
	w := &watcher{news: make(chan struct{}, 1), acted: make(chan struct{})}
	if !p.add(w) {
		return
	}
	defer p.drop(w)
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	parts.Go(func() { p.follow(ctx) })
	parts.Go(func() {
		defer cancel()
		lines := json.NewDecoder(conn)
		for {
			var heard innerdock.PublishedPorts
			if lines.Decode(&heard) != nil {
				return
			}
			p.hear(w, heard.Version)
		}
	})
	defer conn.Close() // before the wait, for the reader
	encoder := json.NewEncoder(conn)
	for told := int64(-1); ; {
		p.mu.Lock()
		current := p.current
		p.mu.Unlock()
		if current.Version > told && current.Version > 0 {
			if encoder.Encode(current) != nil {
				return
			}
			told = current.Version
		}
		select {
		case <-w.news:
		case <-ctx.Done():
			return
		}
	}
}

func (p *published) add(w *watcher) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.watchers) >= maxWatchers {
		return false
	}
	p.watchers[w] = struct{}{}
	return true
}

func (p *published) drop(w *watcher) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.watchers, w)
	close(w.acted) // nobody waits for it any longer
}

func (p *published) hear(w *watcher, version int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if version > w.heard {
		w.heard = version
		close(w.acted)
		w.acted = make(chan struct{})
	}
}

// sync looks at the ports and returns when all watchers have acted on them, or
// have had the time to. Without watchers it costs nothing.
func (p *published) sync(ctx context.Context) {
	p.mu.Lock()
	waiting := make([]*watcher, 0, len(p.watchers))
	for w := range p.watchers {
		waiting = append(waiting, w)
	}
	p.mu.Unlock()
	if len(waiting) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, hearTimeout)
	defer cancel()
	p.look(ctx)
	for _, w := range waiting {
		p.await(ctx, w)
	}
}

// await waits for one watcher.
func (p *published) await(ctx context.Context, w *watcher) {
	for {
		p.mu.Lock()
		_, there := p.watchers[w]
		done := !there || w.heard >= p.current.Version
		acted := w.acted
		p.mu.Unlock()
		if done {
			return
		}
		select {
		case <-acted:
		case <-ctx.Done():
			return
		}
	}
}

// follow looks at the ports whenever Docker tells of a container's start or end,
// until ctx ends. A Docker that went away publishes what it did, until it is back.
func (p *published) follow(ctx context.Context) {
	for ctx.Err() == nil {
		p.events(ctx)
		timer := time.NewTimer(eventsPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// events follows one stream of Docker's events to its end.
func (p *published) events(ctx context.Context) {
	filters := url.Values{"filters": {`{"type":["container"],"event":["start","die"]}`}}
	response, err := p.get(ctx, "/events?"+filters.Encode())
	if err != nil {
		return
	}
	defer response.Body.Close()
	p.look(ctx) // what was before the first event
	decoder := json.NewDecoder(response.Body)
	for {
		var event struct{}
		if decoder.Decode(&event) != nil {
			return
		}
		p.look(ctx)
	}
}

// look lists the ports and tells the watchers if they are others than before.
func (p *published) look(ctx context.Context) {
	p.looking.Lock()
	defer p.looking.Unlock()
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	now, err := p.list(ctx)
	if err != nil {
		return // the next event comes here again
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current.Version > 0 && slices.Equal(now.Ports, p.current.Ports) && slices.Equal(now.UDP, p.current.UDP) {
		return
	}
	now.Version = p.current.Version + 1
	p.current = now
	for w := range p.watchers {
		select {
		case w.news <- struct{}{}:
		default: // it has not looked yet
		}
	}
}

// list asks Docker for the published ports, in order, each once.
func (p *published) list(ctx context.Context) (now innerdock.PublishedPorts, err error) {
	response, err := p.get(ctx, "/containers/json")
	if err != nil {
		return now, err
	}
	defer response.Body.Close()
	var containers []struct {
		Ports []struct {
			PublicPort int
			Type       string
		}
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxList)).Decode(&containers); err != nil {
		return now, err
	}
	for _, container := range containers {
		for _, port := range container.Ports {
			switch {
			case port.PublicPort <= 0: // exposed, not published
			case port.Type == "tcp":
				now.Ports = append(now.Ports, port.PublicPort)
			case port.Type == "udp":
				now.UDP = append(now.UDP, port.PublicPort)
			}
		}
	}
	for _, ports := range []*[]int{&now.Ports, &now.UDP} {
		slices.Sort(*ports)
		*ports = slices.Compact(*ports)
	}
	return now, nil
}

// get asks Docker on a connection of its own, which ends with the body.
func (p *published) get(ctx context.Context, path string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker"+path, nil)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return p.docker(ctx)
	}}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close()
		return nil, innerdock.Errorf(innerdock.CodeUnavailable, "Docker answered %s", response.Status)
	}
	return response, nil
}
