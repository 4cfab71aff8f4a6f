package innerdock

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"iter"
)

// maxEvent caps one server-sent event, in bytes.
const maxEvent = 4 << 20

// Event is one server-sent event.
type Event struct {
	Name string
	Data []byte // valid until the next event
}

// Events reads server-sent events to the end of r. An event that is cut off or
// larger than 4 MiB is the last one, as an error.
func Events(r io.Reader) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(make([]byte, 0, 64<<10), maxEvent)
		var event Event
		open := false
		for lines.Scan() {
			line := lines.Bytes()
			if len(line) == 0 {
				if open && !yield(event, nil) {
					return
				}
				event, open = Event{Data: event.Data[:0]}, false
				continue
			}
			field, value, _ := bytes.Cut(line, []byte(":"))
			value = bytes.TrimPrefix(value, []byte(" "))
			switch string(field) {
			case "event":
				event.Name, open = string(value), true
			case "data":
				event.Data, open = append(event.Data, value...), true
			}
			if len(event.Data) > maxEvent {
				yield(Event{}, errors.New("an event is larger than 4 MiB"))
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(Event{}, err)
		} else if open {
			yield(Event{}, io.ErrUnexpectedEOF)
		}
	}
}
