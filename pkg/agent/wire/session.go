package wire

import (
	"io"
	"time"

	"github.com/hashicorp/yamux"
)

// SessionConfig is yamux's for both sides. A stream may have 1 MiB under way,
// so that a busy machine's latency does not bound its throughput.
func SessionConfig() *yamux.Config {
	c := yamux.DefaultConfig()
	c.MaxStreamWindowSize = 1 << 20
	c.KeepAliveInterval = 30 * time.Second
	c.ConnectionWriteTimeout = 30 * time.Second // a stopped server is no dead one
	c.LogOutput = io.Discard
	return c
}
