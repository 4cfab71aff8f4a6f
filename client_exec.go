package innerdock

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	eventStream = "text/event-stream"
	// resumeFor is how long a broken stream is taken up again without any success.
	resumeFor = 60 * time.Second
)

// Streams is where the output of a process goes. Each may be nil.
type Streams struct {
	Stdout io.Writer
	Stderr io.Writer
	// Started is called once, before any output.
	Started func(Process)
	// Dropped is called when bytes were lost because they were read too late.
	// Default: a line on Stderr.
	Dropped func(stream string, bytes int64)
}

// Exec runs a process to its end: its output goes to the streams as it comes,
// and it is returned with its exit code. A connection that breaks is taken up
// again at the same offset, and so is a server that is started again. When ctx
// is done, Exec returns its error and the process goes on: see Signal.
func (c *Client) Exec(ctx context.Context, idOrName string, spec ProcessSpec, streams Streams) (Process, error) {
	response, err := c.send(ctx, call{
		method: http.MethodPost, path: sandboxPath(idOrName, "/processes"), content: spec, accept: eventStream,
	})
	if err != nil {
		return Process{}, err
	}
	defer func() { _ = response.Body.Close() }()
	f := follower{client: c, sandbox: idOrName, streams: streams}
	if err := f.read(ctx, response.Body); f.started == nil && err == nil {
		return Process{}, Errorf(CodeUnavailable, "the connection broke before it was known whether %q was started; see `innerdock inspect`", spec.Args[0])
	} else if err != nil {
		return Process{}, err
	}
	return f.finish(ctx)
}

// Follow streams the output of a process from its beginning, like Exec.
func (c *Client) Follow(ctx context.Context, idOrName string, pid int, streams Streams) (Process, error) {
	f := follower{client: c, sandbox: idOrName, streams: streams, started: &Process{PID: pid}}
	return f.finish(ctx)
}

// follower reads the output of one process across connections.
type follower struct {
	client  *Client
	sandbox string
	streams Streams
	started *Process
	exited  *Process
	stdout  int64 // offsets that were reached
	stderr  int64
}

// finish reads on until the process has exited.
func (f *follower) finish(ctx context.Context) (Process, error) {
	failures, since := 0, time.Now()
	for f.exited == nil {
		before := f.stdout + f.stderr
		err := f.resume(ctx)
		if ctx.Err() != nil {
			return *f.started, ctx.Err()
		}
		if err != nil && (CodeOf(err) != CodeUnavailable || time.Since(since) > resumeFor) {
			return *f.started, err
		}
		if err == nil && f.stdout+f.stderr > before {
			failures, since = 0, time.Now()
		}
		if f.exited == nil {
			if err := backoff(ctx, failures); err != nil {
				return *f.started, err
			}
			failures++
		}
	}
	return *f.exited, nil
}

// resume opens the stream at the offsets reached and reads until it ends.
func (f *follower) resume(ctx context.Context) error {
	response, err := f.client.send(ctx, call{
		method: http.MethodGet, path: processPath(f.sandbox, f.started.PID, "/output"), accept: eventStream,
		query: url.Values{
			"stdout_offset": {strconv.FormatInt(f.stdout, 10)},
			"stderr_offset": {strconv.FormatInt(f.stderr, 10)},
		},
	})
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	return f.read(ctx, response.Body)
}

// read handles events until the stream ends or breaks, which is no error: see
// exited. It is an error when ctx is done or a writer fails.
func (f *follower) read(ctx context.Context, body io.Reader) error {
	for event, err := range Events(body) {
		if err != nil {
			break
		}
		var content OutputEvent
		if err := json.Unmarshal(event.Data, &content); err != nil {
			return Errorf(CodeUnsupported, "an event of the output cannot be read: %w", err)
		}
		if err := f.handle(event.Name, content); err != nil {
			return err
		}
		if f.exited != nil {
			return nil
		}
	}
	return ctx.Err()
}

func (f *follower) handle(name string, content OutputEvent) error {
	switch name {
	case "started":
		if content.Process == nil || f.started != nil {
			return Errorf(CodeUnsupported, "the output's events are not in order")
		}
		f.started = content.Process
		if f.streams.Started != nil {
			f.streams.Started(*content.Process)
		}
	case "stdout":
		return deliver(f.streams.Stdout, &f.stdout, content)
	case "stderr":
		return deliver(f.streams.Stderr, &f.stderr, content)
	case "dropped":
		f.skip(content)
	case "exit":
		f.exited = content.Process
	}
	return nil
}

// deliver writes what was not written before.
func deliver(to io.Writer, reached *int64, content OutputEvent) error {
	end := content.Offset + int64(len(content.Data))
	if end <= *reached {
		return nil
	}
	data := content.Data
	if content.Offset < *reached {
		data = data[*reached-content.Offset:]
	}
	*reached = end
	if to == nil {
		return nil
	}
	if _, err := to.Write(data); err != nil {
		return Errorf(CodeInvalid, "writing the output: %w", err)
	}
	return nil
}

func (f *follower) skip(content OutputEvent) {
	reached := &f.stdout
	if content.Stream == "stderr" {
		reached = &f.stderr
	}
	*reached = max(*reached, content.Offset+content.Dropped)
	switch {
	case f.streams.Dropped != nil:
		f.streams.Dropped(content.Stream, content.Dropped)
	case f.streams.Stderr != nil:
		_, _ = fmt.Fprintf(f.streams.Stderr, "\n[innerdock: %d bytes of %s were dropped: read too late]\n", content.Dropped, content.Stream)
	}
}
