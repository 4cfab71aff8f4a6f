package process

import (
	"context"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/output"
	"github.com/innerdock/innerdock/pkg/agent/reply"
)

const (
	eventData = 32 << 10         // most bytes of output in one event
	keepAlive = 15 * time.Second // between comments on a quiet stream
)

// follower sends one stream of a process from an offset on.
type follower struct {
	name   string
	buffer *output.Buffer
	reader *output.Reader
}

func follow(name string, buffer *output.Buffer, offset int64) *follower {
	return &follower{name, buffer, buffer.Follow(offset)}
}

// stream sends the output of e until it has ended and all is sent, or until ctx
// or the client's connection ends. The process waits for a slow client; one that
// is stuck loses the oldest bytes, and is told so.
func stream(ctx context.Context, events *reply.Events, e *entry, stdout, stderr int64) {
	followers := []*follower{follow("stdout", e.stdout, stdout), follow("stderr", e.stderr, stderr)}
	defer func() {
		for _, f := range followers {
			f.reader.Close()
		}
	}()
	quiet := time.NewTimer(keepAlive)
	defer quiet.Stop()
	chunk := make([]byte, eventData)
	for {
		outChanged, errChanged := e.stdout.Changed(), e.stderr.Changed()
		ended := false
		select {
		case <-e.Done():
			ended = true
		default:
		}
		sent, err := sendAll(events, followers, chunk)
		if err != nil {
			return
		}
		if ended {
			info := e.info()
			if events.Send("exit", innerdock.OutputEvent{Process: &info}) == nil {
				events.Flush()
			}
			return
		}
		if sent {
			quiet.Reset(keepAlive)
			continue
		}
		select {
		case <-outChanged:
		case <-errChanged:
		case <-e.Done():
		case <-quiet.C:
			if events.KeepAlive() != nil {
				return
			}
			quiet.Reset(keepAlive)
		case <-ctx.Done():
			return
		}
	}
}

// sendAll sends what is there, up to where each stream stood at the call, and
// reports whether that was anything.
func sendAll(events *reply.Events, followers []*follower, chunk []byte) (sent bool, err error) {
	for _, f := range followers {
		for end := f.buffer.Len(); f.reader.Offset() < end; sent = true {
			if err := f.send(events, chunk); err != nil {
				return sent, err
			}
		}
	}
	if sent {
		err = events.Flush()
	}
	return sent, err
}

// send sends one event of data, after one that tells what was lost before it.
func (f *follower) send(events *reply.Events, chunk []byte) error {
	from := f.reader.Offset()
	n, at := f.reader.Read(chunk)
	if lost := at - from; lost > 0 {
		err := events.Send("dropped", innerdock.OutputEvent{Stream: f.name, Offset: from, Dropped: lost})
		if err != nil {
			return err
		}
	}
	if n == 0 {
		return nil
	}
	return events.Send(f.name, innerdock.OutputEvent{Offset: at, Data: chunk[:n]})
}
