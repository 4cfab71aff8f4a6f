package guard

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// What a shim says to containerd when the kernel killed a process of its
// container, and containerd passes on to dockerd: the container ran out of
// memory. gVisor's kernel never says it, so the guard does. The protocol is
// ttrpc, a header of ten bytes before a message of protobuf.
const (
	dockerNamespace = "moby"
	oomTopic        = "/tasks/oom"
	oomType         = "containerd.events.TaskOOM"
	eventsService   = "containerd.services.events.ttrpc.v1.Events"
	forwardMethod   = "Forward"

	ttrpcHeader   = 10
	ttrpcRequest  = 1
	ttrpcResponse = 2
	maxResponse   = 64 << 10
)

// announce tells containerd that a container of Docker's ran out of memory, and
// returns when containerd has taken note.
func (g *Guard) announce(ctx context.Context, container string) error {
	var failures error
	for _, socket := range g.cfg.Containerd {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
		if err != nil {
			failures = errors.Join(failures, err)
			continue
		}
		defer conn.Close()
		if end, ok := ctx.Deadline(); ok {
			_ = conn.SetDeadline(end)
		}
		return forward(conn, oomEvent(container, time.Now()))
	}
	return failures
}

// forward makes the one call and reads its answer.
func forward(conn io.ReadWriter, envelope message) error {
	var forwarded, request message
	forwarded.bytes(1, envelope)
	request.bytes(1, message(eventsService))
	request.bytes(2, message(forwardMethod))
	request.bytes(3, forwarded)
	frame := make([]byte, ttrpcHeader, ttrpcHeader+len(request))
	binary.BigEndian.PutUint32(frame, uint32(len(request)))
	binary.BigEndian.PutUint32(frame[4:], 1) // the first stream of the connection
	frame[8] = ttrpcRequest
	if _, err := conn.Write(append(frame, request...)); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, frame); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(frame)
	if frame[8] != ttrpcResponse || size > maxResponse {
		return fmt.Errorf("containerd answered with a message of type %d and %d bytes", frame[8], size)
	}
	answer := make([]byte, size)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	const statusField = 1<<3 | 2
	if len(answer) > 1 && answer[0] == statusField && answer[1] > 0 {
		return fmt.Errorf("containerd refused the event: %q", answer)
	}
	return nil
}

// oomEvent is the envelope of the event.
func oomEvent(container string, at time.Time) message {
	var event, typed, timestamp, envelope message
	event.bytes(1, message(container))
	typed.bytes(1, message(oomType))
	typed.bytes(2, event)
	timestamp.number(1, uint64(at.Unix()))
	timestamp.number(2, uint64(at.Nanosecond()))
	envelope.bytes(1, timestamp)
	envelope.bytes(2, message(dockerNamespace))
	envelope.bytes(3, message(oomTopic))
	envelope.bytes(4, typed)
	return envelope
}

// message is an encoded message of protobuf.
type message []byte

func (m *message) bytes(field int, value message) {
	*m = binary.AppendUvarint(*m, uint64(field)<<3|2)
	*m = binary.AppendUvarint(*m, uint64(len(value)))
	*m = append(*m, value...)
}

func (m *message) number(field int, value uint64) {
	*m = binary.AppendUvarint(*m, uint64(field)<<3)
	*m = binary.AppendUvarint(*m, value)
}
