package innerdock

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// stdinChunk is how much of a standard input is sent at a time, in bytes.
const stdinChunk = 256 << 10

// StartProcess starts a process and does not wait for it.
func (c *Client) StartProcess(ctx context.Context, idOrName string, spec ProcessSpec) (Process, error) {
	return fetch[Process](ctx, c, call{method: http.MethodPost, path: sandboxPath(idOrName, "/processes"), content: spec})
}

// Processes lists the processes that were started through the API.
func (c *Client) Processes(ctx context.Context, idOrName string) ([]Process, error) {
	list, err := get[struct{ Processes []Process }](ctx, c, sandboxPath(idOrName, "/processes"), nil)
	return list.Processes, err
}

// Process returns a process by its ID.
func (c *Client) Process(ctx context.Context, idOrName string, pid int) (Process, error) {
	return get[Process](ctx, c, processPath(idOrName, pid, ""), nil)
}

// WaitProcess returns a process when it has exited.
func (c *Client) WaitProcess(ctx context.Context, idOrName string, pid int) (Process, error) {
	query := url.Values{"wait": {seconds(longPoll)}}
	for {
		process, err := get[Process](ctx, c, processPath(idOrName, pid, ""), query)
		if err != nil || process.State == ProcessExited {
			return process, err
		}
	}
}

// Signal sends a signal such as SIGTERM to a process and its group.
func (c *Client) Signal(ctx context.Context, idOrName string, pid int, signal string) error {
	return c.do(ctx, call{
		method: http.MethodPost, path: processPath(idOrName, pid, "/signal"), content: SignalSpec{Signal: signal},
	})
}

// WriteStdin sends data to a process's standard input, which last closes.
func (c *Client) WriteStdin(ctx context.Context, idOrName string, pid int, data []byte, last bool) error {
	return c.do(ctx, call{
		method: http.MethodPost, path: processPath(idOrName, pid, "/stdin"),
		query: url.Values{"close": {strconv.FormatBool(last)}}, body: bytes.NewReader(data),
	})
}

// CopyStdin sends all of from to a process's standard input and closes it. A
// process that does not want it any more is no error.
func (c *Client) CopyStdin(ctx context.Context, idOrName string, pid int, from io.Reader) error {
	buffer := make([]byte, stdinChunk)
	for {
		n, err := from.Read(buffer)
		if err != nil && !errors.Is(err, io.EOF) {
			return Errorf(CodeInvalid, "reading the standard input: %w", err)
		}
		if n > 0 || err != nil {
			if sent := c.WriteStdin(ctx, idOrName, pid, buffer[:n], err != nil); CodeOf(sent) == CodeConflict || CodeOf(sent) == CodeNotFound {
				return nil
			} else if sent != nil {
				return sent
			}
		}
		if err != nil {
			return nil
		}
	}
}

// ReadOutput returns what is buffered of a process's "stdout" or "stderr" from
// an offset on, and the offset of its first byte: a later one if bytes were dropped.
func (c *Client) ReadOutput(ctx context.Context, idOrName string, pid int, stream string, offset int64) ([]byte, int64, error) {
	response, err := c.send(ctx, call{
		method: http.MethodGet, path: processPath(idOrName, pid, "/"+url.PathEscape(stream)),
		query: url.Values{"offset": {strconv.FormatInt(offset, 10)}},
	})
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = response.Body.Close() }()
	first, err := strconv.ParseInt(response.Header.Get(OutputHeader), 10, 64)
	if err != nil {
		first = offset
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, maxResponse))
	if err != nil {
		return nil, 0, c.unreachable(ctx, err)
	}
	return data, first, nil
}

// backoff waits before the next try of something that failed n times.
func backoff(ctx context.Context, n int) error {
	timer := time.NewTimer(min(100*time.Millisecond<<min(n, 5), 2*time.Second))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
