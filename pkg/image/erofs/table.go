package erofs

// table is a growing array whose elements never move: growing needs no second
// copy of what is there.
type table[T any] struct {
	chunks []*[chunkSize]T
	length uint32
	free   []uint32 // given back, to be used again
}

const chunkSize = 1 << 12

func (t *table[T]) at(i uint32) *T { return &t.chunks[i/chunkSize][i%chunkSize] }

// add returns a zero element. It reports whether the table grew for it.
func (t *table[T]) add() (i uint32, grew bool) {
	if n := len(t.free); n > 0 {
		i = t.free[n-1]
		t.free = t.free[:n-1]
		*t.at(i) = *new(T)
		return i, false
	}
	if t.length%chunkSize == 0 {
		t.chunks = append(t.chunks, new([chunkSize]T))
	}
	t.length++
	return t.length - 1, true
}

func (t *table[T]) remove(i uint32) { t.free = append(t.free, i) }

// text holds strings end to end.
type text struct {
	chunks [][]byte
	length uint32
}

const textChunk = 1 << 16 // more than the longest string

// add keeps s, which lies in one chunk, and returns where.
func (t *text) add(s string) uint32 {
	if rest := textChunk - t.length%textChunk; t.length%textChunk == 0 || int(rest) < len(s) {
		t.length = uint32(len(t.chunks)) * textChunk
		t.chunks = append(t.chunks, make([]byte, textChunk))
	}
	at := t.length
	copy(t.chunks[at/textChunk][at%textChunk:], s)
	t.length += uint32(len(s))
	return at
}

// get returns the string of n bytes at a place that add returned.
func (t *text) get(at, n uint32) []byte {
	if n == 0 {
		return nil
	}
	return t.chunks[at/textChunk][at%textChunk:][:n]
}
