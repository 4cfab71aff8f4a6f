package output

import (
	"os"
	"testing"
	"time"
)

// pump writes total bytes through a pipe to a Buffer and tells when it is done.
func pump(t *testing.T, to *Buffer, total int) (p *Pipe, done chan struct{}) {
	t.Helper()
	p, fd, err := NewPipe(to)
	if err != nil {
		t.Fatal(err)
	}
	done = make(chan struct{})
	go p.Copy()
	go func() {
		defer close(done)
		w := os.NewFile(uintptr(fd), "writer")
		chunk := make([]byte, 64<<10)
		for range total / len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				break
			}
		}
		_ = w.Close()
	}()
	return p, done
}

func TestAWriterWaitsForAReaderThatMoves(t *testing.T) {
	const total = 64 << 20
	b := NewBuffer(8 << 20)
	r := b.Follow(0)
	defer r.Close()
	p, _ := pump(t, b, total)
	buf := make([]byte, 100_000)
	for r.Offset() < total {
		changed := b.Changed()
		before := r.Offset()
		n, at := r.Read(buf)
		if at != before {
			t.Fatalf("bytes %d to %d were dropped", before, at)
		}
		if n > 0 {
			continue
		}
		select {
		case <-changed:
		case <-time.After(time.Minute):
			t.Fatalf("nothing comes after byte %d", before)
		}
	}
	<-p.EOF()
}

func TestAWriterGoesOnWithoutAReaderThatLeft(t *testing.T) {
	b := NewBuffer(8 << 20)
	r := b.Follow(0)
	p, done := pump(t, b, 32<<20)
	for b.Len() < b.limit-reserve { // until it waits for the reader
		select {
		case <-b.Changed():
		case <-time.After(time.Minute):
			t.Fatalf("the writer stopped at %d", b.Len())
		}
	}
	select {
	case <-done:
		t.Fatal("the writer did not wait")
	case <-time.After(50 * time.Millisecond):
	}
	r.Close()
	<-done
	<-p.EOF()
}

func TestCloseEndsAWaitingPipe(t *testing.T) {
	b := NewBuffer(8 << 20)
	defer b.Follow(0).Close()
	p, done := pump(t, b, 32<<20)
	for b.Len() < b.limit-reserve {
		<-b.Changed()
	}
	p.Close()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("the writer still waits")
	}
}
