package image

import (
	"fmt"
	"sync"
	"time"

	"github.com/innerdock/innerdock"
)

// The events of a build that this package sends; the server adds image and error.
const (
	eventProgress = "progress"
	eventLog      = "log"
)

// reporter sends a build's events, one at a time.
type reporter struct {
	mu   *sync.Mutex
	send func(event string, e innerdock.BuildEvent)
}

func newReporter(send func(string, innerdock.BuildEvent)) reporter {
	if send == nil {
		send = func(string, innerdock.BuildEvent) {}
	}
	return reporter{&sync.Mutex{}, send}
}

// progress says what is being done.
func (r reporter) progress(step, format string, args ...any) {
	r.event(eventProgress, step, fmt.Sprintf(format, args...))
}

// log passes a line of output on.
func (r reporter) log(step, line string) { r.event(eventLog, step, line) }

func (r reporter) event(event, step, message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.send(event, innerdock.BuildEvent{Step: step, Message: message})
}

// every calls f at each interval until stop is called, which waits for it.
func (r reporter) every(interval time.Duration, f func()) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				f()
			case <-quit:
				return
			}
		}
	}()
	return func() { close(quit); <-done }
}
