// Reaper is the program in the image testcontainers/ryuk that innerdock brings
// along for sandboxes without a way to Docker Hub. Test libraries start it beside
// their containers and keep a connection to it: when that ends, it removes what
// they have told it of, by labels, and goes. It speaks what they speak with the
// original: a line of filters, label=NAME=VALUE joined by &, is answered by ACK.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

const (
	socket     = "/var/run/docker.sock"
	maxLine    = 64 << 10
	attempts   = 8 // to remove what is in use by what is removed as well
	firstPause = 50 * time.Millisecond
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	port := os.Getenv("RYUK_PORT")
	if port == "" {
		port = "8080"
	}
	listener, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	log.Println("Started!")
	r := newReaper(socket)
	go r.accept(listener)
	r.wait(ctx, duration("RYUK_CONNECTION_TIMEOUT", time.Minute), duration("RYUK_RECONNECTION_TIMEOUT", 10*time.Second))
	_ = listener.Close()
	return r.reap(context.WithoutCancel(ctx))
}

// newReaper returns one that removes from the Docker that listens on socket.
func newReaper(socket string) *reaper {
	return &reaper{socket: socket, filters: map[string]url.Values{}, came: make(chan struct{}, 1), left: make(chan struct{}, 1)}
}

func duration(name string, otherwise time.Duration) time.Duration {
	if d, err := time.ParseDuration(os.Getenv(name)); err == nil {
		return d
	}
	return otherwise
}

// reaper knows who is connected and what is to be removed.
type reaper struct {
	socket     string
	came, left chan struct{}

	mu      sync.Mutex
	clients int
	filters map[string]url.Values // by their line
}

func (r *reaper) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		r.count(1)
		go func() {
			defer r.count(-1)
			defer func() { _ = conn.Close() }()
			r.serve(conn)
		}()
	}
}

func (r *reaper) count(n int) int {
	r.mu.Lock()
	r.clients += n
	now := r.clients
	r.mu.Unlock()
	signal := r.came
	if n < 0 {
		signal = r.left
	}
	if n != 0 {
		select {
		case signal <- struct{}{}:
		default:
		}
	}
	return now
}

func (r *reaper) serve(conn net.Conn) {
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		filters, err := url.ParseQuery(lines.Text())
		if err != nil || len(filters) == 0 {
			continue
		}
		r.mu.Lock()
		r.filters[lines.Text()] = filters
		r.mu.Unlock()
		if _, err := io.WriteString(conn, "ACK\n"); err != nil {
			return
		}
	}
}

// wait returns when nobody has come in time, or all have left and nobody comes
// back in time, or ctx is done.
func (r *reaper) wait(ctx context.Context, first, again time.Duration) {
	patience := first
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		var late <-chan time.Time
		if r.count(0) == 0 {
			timer.Reset(patience)
			late = timer.C
		}
		select {
		case <-r.came:
			patience = again
		case <-r.left:
		case <-late:
			if r.count(0) == 0 {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// kind is one kind of what is removed.
type kind struct{ list, remove, key, in string }

var kinds = []kind{
	{"/containers/json?all=1&filters=%s", "/containers/%s?force=1&v=1", "Id", ""},
	{"/networks?filters=%s", "/networks/%s", "Id", ""},
	{"/volumes?filters=%s", "/volumes/%s?force=1", "Name", "Volumes"},
	{"/images/json?filters=%s", "/images/%s?force=1", "Id", ""},
}

// reap removes what the filters name.
func (r *reaper) reap(ctx context.Context) error {
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", r.socket)
		},
	}}
	defer client.CloseIdleConnections()
	r.mu.Lock()
	defer r.mu.Unlock()
	var err error
	for attempt := range attempts {
		if attempt > 0 {
			time.Sleep(firstPause << attempt) // what is being removed takes a while
		}
		err = nil
		for _, filters := range r.filters {
			for _, k := range kinds {
				err = errors.Join(err, k.removeAll(ctx, client, filters))
			}
		}
		if err == nil {
			return nil
		}
	}
	return err
}

func (k kind) removeAll(ctx context.Context, client *http.Client, filters url.Values) error {
	encoded, err := json.Marshal(filters)
	if err != nil {
		return err
	}
	var content json.RawMessage
	if err := call(ctx, client, http.MethodGet, fmt.Sprintf(k.list, url.QueryEscape(string(encoded))), &content); err != nil {
		return err
	}
	if k.in != "" {
		var within map[string]json.RawMessage
		if err := json.Unmarshal(content, &within); err != nil {
			return err
		}
		content = within[k.in]
	}
	var found []map[string]any
	if err := json.Unmarshal(content, &found); err != nil {
		return err
	}
	for _, item := range found {
		name, _ := item[k.key].(string)
		err = errors.Join(err, call(ctx, client, http.MethodDelete, fmt.Sprintf(k.remove, url.PathEscape(name)), nil))
	}
	return err
}

// call makes a request of Docker. What is gone already is no error.
func call(ctx context.Context, client *http.Client, method, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	switch {
	case response.StatusCode == http.StatusNotFound:
		return nil
	case response.StatusCode/100 != 2:
		return fmt.Errorf("%s %s: %s", method, path, response.Status)
	case into == nil:
		return nil
	}
	return json.NewDecoder(response.Body).Decode(into)
}
