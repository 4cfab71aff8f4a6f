package output

import (
	"bytes"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestBufferKeepsTheNewest compares with the whole stream after every write.
func TestBufferKeepsTheNewest(t *testing.T) {
	for _, limit := range []int64{1, 100, firstChunk, 3*fullChunk + 17} {
		rng := rand.New(rand.NewPCG(1, uint64(limit)))
		b := NewBuffer(limit)
		var all []byte
		for range 300 {
			p := make([]byte, rng.IntN(2*int(limit)/50+40))
			for i := range p {
				p[i] = byte(rng.Uint32())
			}
			b.Write(p)
			all = append(all, p...)
			if b.Len() != int64(len(all)) || b.Size() != min(limit, b.Len()) {
				t.Fatalf("limit %d: len %d, size %d after %d bytes", limit, b.Len(), b.Size(), len(all))
			}
			from := int64(rng.IntN(len(all) + 1))
			got, at := readAll(b, from)
			if want := max(from, b.Len()-limit); at != want || !bytes.Equal(got, all[at:]) {
				t.Fatalf("limit %d: read from %d began at %d, want %d; %d bytes of %d", limit, from, at, want, len(got), len(all))
			}
		}
	}
}

func readAll(b *Buffer, from int64) (all []byte, first int64) {
	p := make([]byte, 777)
	n, first := b.ReadAt(p, from)
	for at := first; n > 0; {
		all = append(all, p[:n]...)
		at += int64(n)
		n, _ = b.ReadAt(p, at)
	}
	return all, first
}

func TestBufferOneWriteOverTheLimit(t *testing.T) {
	b := NewBuffer(10)
	b.Write([]byte(strings.Repeat("x", 3*fullChunk) + "0123456789"))
	if got, at := readAll(b, 0); string(got) != "0123456789" || at != 3*fullChunk {
		t.Errorf("kept %q from %d", got, at)
	}
}

func TestBufferMemoryIsBounded(t *testing.T) {
	b := NewBuffer(1 << 20)
	p := make([]byte, 10_000)
	for range 10_000 { // 100 MB
		b.Write(p)
	}
	held := 0
	for _, c := range b.chunks {
		held += cap(c)
	}
	if held > 1<<20+2*fullChunk {
		t.Errorf("holds %d bytes for 1 MiB", held)
	}
}

func TestBufferDiscard(t *testing.T) {
	b := NewBuffer(100)
	b.Write([]byte("hello"))
	b.Discard()
	b.Write([]byte("more"))
	if n, at := b.ReadAt(make([]byte, 10), 0); n != 0 || at != 9 || b.Size() != 0 || b.Len() != 9 {
		t.Errorf("read %d at %d, size %d, len %d", n, at, b.Size(), b.Len())
	}
}

func TestBufferChanged(t *testing.T) {
	b := NewBuffer(100)
	changed := b.Changed()
	select {
	case <-changed:
		t.Fatal("changed before a write")
	default:
	}
	b.Write([]byte("x"))
	<-changed
}

func TestBufferTail(t *testing.T) {
	b := NewBuffer(100)
	b.Write([]byte("one\ntwo\nthree\n"))
	for n, want := range map[int]string{100: "one\ntwo\nthree\n", 8: "three\n", 12: "two\nthree\n", 3: ""} {
		if got := b.Tail(n); got != want {
			t.Errorf("Tail(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestPipeDrainTakesAllThatWasWritten(t *testing.T) {
	b := NewBuffer(1 << 20)
	p, write, err := NewPipe(b)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { p.Copy(); close(done) }()
	w := os.NewFile(uintptr(write), "write")
	for i := int64(1); i <= 1000; i++ {
		w.Write([]byte("0123456789"))
		p.Drain()
		if b.Len() != 10*i {
			t.Fatalf("%d bytes after %d", b.Len(), 10*i)
		}
	}
	w.Close()
	<-p.EOF()
	<-done
}

func TestPipeCloseEndsCopy(t *testing.T) {
	p, write, err := NewPipe(NewBuffer(10))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(write)
	done := make(chan struct{})
	go func() { p.Copy(); close(done) }()
	p.Close()
	<-done
	p.Drain()
}
