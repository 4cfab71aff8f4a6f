package innerdock

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
)

// The output's events come from inside a sandbox.
func FuzzOutputEvents(f *testing.F) {
	f.Add("event: started\ndata: {\"process\":{\"pid\":7}}\n\nevent: stdout\ndata: {\"data\":\"aGVsbG8=\"}\n\nevent: exit\ndata: {\"process\":{}}\n\n")
	f.Add("event: stdout\ndata: {\"offset\":-3,\"data\":\"aGVsbG8=\"}\n\n")
	f.Add("event: dropped\ndata: {\"stream\":\"stderr\",\"offset\":9223372036854775807,\"dropped\":9223372036854775807}\n\n")
	f.Fuzz(func(t *testing.T, stream string) {
		var out, errs bytes.Buffer
		run := follower{streams: Streams{Stdout: &out, Stderr: &errs, Dropped: func(string, int64) {}}}
		_ = run.read(context.Background(), io.NopCloser(strings.NewReader(stream)))
		if run.stdout < 0 || run.stderr < 0 || int64(out.Len()) > run.stdout || int64(errs.Len()) > run.stderr {
			t.Errorf("offsets %d and %d after %d and %d bytes", run.stdout, run.stderr, out.Len(), errs.Len())
		}
	})
}

func TestOutputIsDeliveredOnce(t *testing.T) {
	var out bytes.Buffer
	var dropped int64
	run := follower{streams: Streams{Stdout: &out, Dropped: func(_ string, n int64) { dropped += n }}}
	for _, event := range []struct {
		name    string
		content OutputEvent
	}{
		{"stdout", OutputEvent{Data: []byte("abc")}},
		{"stdout", OutputEvent{Offset: 1, Data: []byte("bcde")}}, // again, and more
		{"stdout", OutputEvent{Data: []byte("ab")}},              // again
		{"dropped", OutputEvent{Stream: "stdout", Offset: 5, Dropped: 3}},
		{"stdout", OutputEvent{Offset: 8, Data: []byte("ij")}},
	} {
		if err := run.handle(event.name, event.content); err != nil {
			t.Fatal(err)
		}
	}
	if out.String() != "abcdeij" || run.stdout != 10 || dropped != 3 {
		t.Errorf("%q up to %d, %d dropped", out.String(), run.stdout, dropped)
	}
}

func TestHosts(t *testing.T) {
	for host, ok := range map[string]bool{
		"": true, "unix:///run/x.sock": true, "http://127.0.0.1:7070": true, "https://dock.example/prefix/": true,
		"unix://run/x.sock": false, "tcp://x": false, "127.0.0.1:7070": false, "http://": false, "http://user:pw@x": false, "::": false,
	} {
		c, err := New(host, "")
		if ok != (err == nil) || err != nil && CodeOf(err) != CodeInvalid {
			t.Errorf("%q: %v", host, err)
		}
		if c != nil {
			c.Close()
		}
	}
}
