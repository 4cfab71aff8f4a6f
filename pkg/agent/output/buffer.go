// Package output keeps what a process writes: the newest bytes of a stream,
// addressed by their offset from its beginning, readable while it grows.
package output

import "sync"

const (
	firstChunk = 4 << 10
	fullChunk  = 64 << 10
)

// Buffer holds the last Limit bytes of a stream. Memory is taken as bytes
// arrive. All methods may be called at once from many goroutines.
type Buffer struct {
	limit int64

	mu      sync.Mutex
	chunks  [][]byte
	head    int64 // offset of chunks[0][0]
	end     int64 // bytes written so far
	changed chan struct{}
	readers map[*Reader]struct{}
}

// NewBuffer returns an empty Buffer that keeps the last limit bytes.
func NewBuffer(limit int64) *Buffer { return &Buffer{limit: limit} }

// Write appends p, dropping the oldest bytes beyond the limit. It never fails.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(p)
	b.end += int64(n)
	if b.limit == 0 {
		b.head = b.end
		b.wake()
		return n, nil
	}
	for len(p) > 0 {
		tail := b.tail()
		room := tail[len(tail):cap(tail)]
		m := copy(room, p)
		b.chunks[len(b.chunks)-1] = tail[:len(tail)+m]
		p = p[m:]
	}
	b.wake()
	return n, nil
}

// tail returns the last chunk, with room in it. It reuses a first chunk that
// holds only bytes beyond the limit.
func (b *Buffer) tail() []byte {
	if n := len(b.chunks); n > 0 {
		if last := b.chunks[n-1]; len(last) < cap(last) {
			return last
		}
	}
	size := firstChunk
	if n := len(b.chunks); n > 0 {
		size = min(2*cap(b.chunks[n-1]), fullChunk)
	}
	var fresh []byte
	for len(b.chunks) > 1 && b.head+int64(len(b.chunks[0])) <= b.end-b.limit {
		first := b.chunks[0]
		b.head += int64(len(first))
		b.chunks[0] = nil
		b.chunks = b.chunks[1:]
		if cap(first) == size {
			fresh = first[:0]
		}
	}
	if fresh == nil {
		fresh = make([]byte, 0, size)
	}
	b.chunks = append(b.chunks, fresh)
	return fresh
}

// start is the offset of the oldest byte that is kept.
func (b *Buffer) start() int64 { return max(b.head, b.end-b.limit) }

// ReadAt copies bytes from offset on into p. It returns how many, and the
// offset of the first of them, which is past the one asked for when the oldest
// bytes are gone. 0 bytes: nothing is there yet.
func (b *Buffer) ReadAt(p []byte, offset int64) (n int, at int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at = max(offset, b.start())
	if at >= b.end {
		return 0, at
	}
	pos := b.head
	for _, c := range b.chunks {
		if n == len(p) {
			break
		}
		if next := at + int64(n); next < pos+int64(len(c)) {
			n += copy(p[n:], c[next-pos:])
		}
		pos += int64(len(c))
	}
	return n, at
}

// Len returns the number of bytes written so far.
func (b *Buffer) Len() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.end
}

// Size returns the number of bytes kept.
func (b *Buffer) Size() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.end - b.start()
}

// Changed returns a channel that is closed at the next Write. Take it before
// reading, so that nothing is missed.
func (b *Buffer) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.changed == nil {
		b.changed = make(chan struct{})
	}
	return b.changed
}

// Discard forgets all bytes, and those that are still to come; only their
// number is kept.
func (b *Buffer) Discard() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limit, b.chunks, b.head = 0, nil, b.end
}

func (b *Buffer) wake() {
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}

// Tail returns the last bytes that are kept, at most n, from the beginning of
// a line where there is one.
func (b *Buffer) Tail(n int) string {
	p := make([]byte, n)
	m, at := b.ReadAt(p, b.Len()-int64(n))
	p = p[:m]
	if at == 0 {
		return string(p)
	}
	for i, c := range p {
		if c == '\n' {
			return string(p[i+1:])
		}
	}
	return string(p)
}
