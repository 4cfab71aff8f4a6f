package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// daemon is a Docker that has what is in it and removes it when it is asked to.
type daemon struct {
	socket string

	mu      sync.Mutex
	filters []string // that were asked for
	there   []string // paths, such as /containers/a
	refuse  int      // removals
}

func newDaemon(t *testing.T, there ...string) *daemon {
	t.Helper()
	d := &daemon{socket: filepath.Join(t.TempDir(), "docker.sock"), there: there}
	listener, err := net.Listen("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: d}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() { server.Close(); serving.Wait() })
	return d
}

func (d *daemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.Method == http.MethodDelete {
		d.remove(w, r)
		return
	}
	d.filters = append(d.filters, r.URL.Query().Get("filters"))
	kind := "/" + strings.Split(r.URL.Path, "/")[1] + "/"
	found := []map[string]string{}
	for _, path := range d.there {
		if name, ok := strings.CutPrefix(path, kind); ok {
			found = append(found, map[string]string{"Id": name, "Name": name})
		}
	}
	if kind == "/volumes/" {
		json.NewEncoder(w).Encode(map[string]any{"Volumes": found})
		return
	}
	json.NewEncoder(w).Encode(found)
}

func (d *daemon) remove(w http.ResponseWriter, r *http.Request) {
	at := slices.Index(d.there, r.URL.Path)
	switch {
	case at < 0:
		w.WriteHeader(http.StatusNotFound)
	case d.refuse > 0:
		d.refuse--
		w.WriteHeader(http.StatusConflict)
	default:
		d.there = slices.Delete(d.there, at, at+1)
		w.WriteHeader(http.StatusNoContent)
	}
}

// left is what is there still.
func (d *daemon) left() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.there)
}

// start runs a reaper and returns where it listens, and its outcome once.
func start(t *testing.T, d *daemon, first, again time.Duration) (string, <-chan error) {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := newReaper(d.socket)
	ctx, cancel := context.WithCancel(context.Background())
	outcome := make(chan error, 1)
	var running sync.WaitGroup
	running.Go(func() { r.accept(listener) })
	running.Go(func() {
		r.wait(ctx, first, again)
		listener.Close()
		outcome <- r.reap(context.WithoutCancel(ctx))
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return listener.Addr().String(), outcome
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	return conn
}

// say sends a line of filters and waits for the answer.
func say(t *testing.T, conn net.Conn, line string) {
	t.Helper()
	io.WriteString(conn, line)
	if answer, err := bufio.NewReader(conn).ReadString('\n'); answer != "ACK\n" {
		t.Fatalf("%q is answered by %q, %v", line, answer, err)
	}
}

func TestItRemovesWhenTheLastClientHasLeft(t *testing.T) {
	d := newDaemon(t, "/containers/a", "/containers/b", "/networks/n", "/volumes/v", "/images/sha256:i")
	address, outcome := start(t, d, time.Minute, 10*time.Millisecond)
	one, other := dial(t, address), dial(t, address)
	say(t, one, "label=session=1&label=app\r\n")
	say(t, other, "label=session=1&label=app\n")
	one.Close()
	say(t, other, "label=session=2\n") // long after one client has left
	if left := d.left(); len(left) != 5 {
		t.Fatalf("while a client is there, %v are left", left)
	}
	other.Close()
	if err := <-outcome; err != nil || len(d.left()) > 0 {
		t.Errorf("%v are left, %v", d.left(), err)
	}
	for _, want := range []string{`{"label":["session=1","app"]}`, `{"label":["session=2"]}`} {
		if !slices.Contains(d.filters, want) {
			t.Errorf("it never asked for %s, but for %v", want, d.filters)
		}
	}
	if len(d.filters) != 2*len(kinds) {
		t.Errorf("it asked %d times: for the same filters twice?", len(d.filters))
	}
}

func TestAClientThatComesBackIsWaitedFor(t *testing.T) {
	d := newDaemon(t, "/containers/a")
	address, outcome := start(t, d, time.Minute, time.Minute)
	first := dial(t, address)
	say(t, first, "label=session=1\n")
	first.Close()
	again := dial(t, address)
	say(t, again, "label=session=1\n")
	select {
	case err := <-outcome:
		t.Fatalf("it went while a client was there: %v", err)
	default:
	}
	if left := d.left(); len(left) != 1 {
		t.Errorf("%v is left", left)
	}
}

// Without a client there is nothing to remove, whatever there is.
func TestNobodyCame(t *testing.T) {
	d := newDaemon(t, "/containers/a")
	_, outcome := start(t, d, time.Millisecond, time.Minute)
	if err := <-outcome; err != nil || len(d.left()) != 1 {
		t.Errorf("%v is left, %v", d.left(), err)
	}
}

func TestNonsenseIsNotAnswered(t *testing.T) {
	d := newDaemon(t, "/containers/a")
	address, outcome := start(t, d, time.Minute, time.Millisecond)
	conn := dial(t, address)
	io.WriteString(conn, "\n%zz\n")
	say(t, conn, "label=session=1\n") // and this is the first answer
	conn.Close()
	if err := <-outcome; err != nil || len(d.left()) > 0 || slices.Contains(d.filters, "{}") {
		t.Errorf("%v are left, %v; it asked for %v", d.left(), err, d.filters)
	}
}

func TestWhatIsInUseIsTriedAgain(t *testing.T) {
	d := newDaemon(t, "/networks/n", "/volumes/v")
	d.refuse = 3
	address, outcome := start(t, d, time.Minute, time.Millisecond)
	conn := dial(t, address)
	say(t, conn, "label=session=1\n")
	conn.Close()
	if err := <-outcome; err != nil || len(d.left()) > 0 {
		t.Errorf("%v are left, %v", d.left(), err)
	}
}
