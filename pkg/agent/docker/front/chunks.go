package front

import (
	"bufio"
	"fmt"
	"io"
	"net/http/httputil"
)

const (
	chunkHead = "%08x\r\n"
	chunkTail = "\r\n"
	headSize  = 8 + len("\r\n")
)

// chunks reads a body that comes in HTTP's chunks, as chunks that are as large as
// the buffer that they are read into: dockerd reads once for the head of each, and
// clients make them small. What follows the last one passes as it came.
type chunks struct {
	from *bufio.Reader
	body io.Reader // until its end
}

func newChunks(from io.Reader) *chunks {
	buffered := bufio.NewReaderSize(from, chunkBuffer)
	return &chunks{from: buffered, body: httputil.NewChunkedReader(buffered)}
}

// Read needs room for more than the head and tail of a chunk. A body that is broken
// off or malformed ends there, and dockerd says what is wrong with it.
func (c *chunks) Read(p []byte) (int, error) {
	if c.body == nil {
		return c.from.Read(p)
	}
	n, err := c.body.Read(p[headSize : len(p)-len(chunkTail)])
	switch {
	case n > 0: // and the error comes again
		copy(p, fmt.Sprintf(chunkHead, n))
		copy(p[headSize+n:], chunkTail)
		return headSize + n + len(chunkTail), nil
	case err == io.EOF:
		c.body = nil
		return copy(p, "0\r\n"), nil
	case err != nil:
		return 0, io.EOF
	}
	return 0, nil
}
