package output

import "time"

const (
	// patience is how long a writer waits for a reader that does not move. A
	// reader that is slow but moves sets the pace; one that is stuck loses bytes.
	patience = 10 * time.Second
	// reserve is the part of a Buffer that Room keeps free for Drain.
	reserve = 2 * drainMost
)

// Reader follows a Buffer from an offset on. While it is open and moves, the
// process that writes is held back rather than bytes dropped that the Reader
// has not read. It is one goroutine's.
type Reader struct {
	buffer *Buffer
	offset int64
	moved  chan struct{} // has one element after a Read, or when closed
	stuck  bool          // the writer has lost its patience
}

// Follow opens a Reader, which the caller closes.
func (b *Buffer) Follow(offset int64) *Reader {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := &Reader{buffer: b, offset: offset, moved: make(chan struct{}, 1)}
	if b.readers == nil {
		b.readers = map[*Reader]struct{}{}
	}
	b.readers[r] = struct{}{}
	return r
}

// Offset is where the next Read begins.
func (r *Reader) Offset() int64 { return r.offset }

// Read copies the next bytes into p. It returns how many, and the offset of the
// first of them, as Buffer.ReadAt does.
func (r *Reader) Read(p []byte) (n int, at int64) {
	n, at = r.buffer.ReadAt(p, r.offset)
	r.buffer.mu.Lock()
	r.offset, r.stuck = at+int64(n), false
	r.buffer.mu.Unlock()
	r.wakeWriter()
	return n, at
}

// Close ends the Reader: nobody waits for it any more.
func (r *Reader) Close() {
	r.buffer.mu.Lock()
	delete(r.buffer.readers, r)
	r.buffer.mu.Unlock()
	r.wakeWriter()
}

func (r *Reader) wakeWriter() {
	select {
	case r.moved <- struct{}{}:
	default:
	}
}

// Room waits until no Reader would lose bytes by the next writes, or has not
// moved for the patience, or stop is closed.
func (b *Buffer) Room(stop <-chan struct{}) {
	for {
		r := b.laggard()
		if r == nil {
			return
		}
		timer := time.NewTimer(patience)
		select {
		case <-r.moved:
		case <-stop:
		case <-timer.C:
			b.mu.Lock()
			r.stuck = true
			b.mu.Unlock()
		}
		timer.Stop()
		select {
		case <-stop:
			return
		default:
		}
	}
}

// laggard returns a Reader that is about to lose bytes.
func (b *Buffer) laggard() *Reader {
	b.mu.Lock()
	defer b.mu.Unlock()
	for r := range b.readers {
		if !r.stuck && r.offset < b.end-max(b.limit-reserve, 0) && b.limit > 0 {
			return r
		}
	}
	return nil
}
