package wire

import (
	"io"
	"math"
	"time"

	"github.com/hashicorp/yamux"
)

// SessionConfig is yamux's for both sides. A stream may have 1 MiB under way,
// so that a busy machine's latency does not bound its throughput. Nothing in it
// has a deadline: a sandbox may be paused at any moment, and what was under way
// goes on afterwards. KeepAlive finds the other side dead.
func SessionConfig() *yamux.Config {
	c := yamux.DefaultConfig()
	c.MaxStreamWindowSize = 1 << 20
	c.EnableKeepAlive = false
	c.ConnectionWriteTimeout = math.MaxInt64
	c.StreamOpenTimeout = 0
	c.LogOutput = io.Discard
	return c
}

const (
	// keepAlive is how often the other side is asked whether it is there, and
	// patience how many times in a row it may still owe the last answer.
	keepAlive = 30 * time.Second
	patience  = 2
)

// KeepAlive closes a session whose other side does not answer, and returns at its
// end. While quiet says so, the other side cannot answer, and need not. Rounds are
// counted and not time: a pause of one's own is one round, however long.
func KeepAlive(session *yamux.Session, quiet func() bool) { keepAliveBy(session, quiet, keepAlive) }

func keepAliveBy(session *yamux.Session, quiet func() bool, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var asked chan struct{} // closed at the answer; nil: there is no question
	missed := 0
	for {
		select {
		case <-session.CloseChan():
			if asked != nil {
				<-asked
			}
			return
		case <-asked:
			asked, missed = nil, 0
			continue
		case <-tick.C:
		}
		switch {
		case quiet():
			missed = 0
		case asked == nil:
			answered := make(chan struct{})
			asked = answered
			go func() {
				defer close(answered)
				_, _ = session.Ping() // fails at the session's end alone
			}()
		default:
			if missed++; missed == patience {
				_ = session.Close()
			}
		}
	}
}
