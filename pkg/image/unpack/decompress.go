package unpack

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxWindow is the most memory that a zstd frame may ask for, in bytes.
const maxWindow = 64 << 20

// ApplyBlob adds one layer as registries have it: compressed or not. diffID is
// the digest of what it unpacks to.
func (m *Image) ApplyBlob(ctx context.Context, blob io.Reader, diffID string) error {
	plain, err := decompress(blob)
	if err != nil {
		return err
	}
	ahead := readAhead(plain)
	sum := sha256.New()
	err = m.Apply(ctx, io.TeeReader(ahead, sum))
	ahead.stop()
	plain.Close()
	if err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != diffID {
		return refused("a layer unpacks to %s, and the configuration says %s; push it again", got, clip(diffID))
	}
	return nil
}

// decompress reads gzip, zstd or plain tar, told by the first bytes.
func decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 256<<10)
	magic, err := br.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, archiveError(err)
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, archiveError(err)
		}
		return z, nil
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(br, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, archiveError(err)
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(br), nil
}

// ahead is a reader whose source is read by a goroutine of its own, so that
// decompressing and writing take turns on no core.
type ahead struct {
	full, empty chan []byte
	now, rest   []byte
	err         error // of the source, once full is closed
}

const (
	aheadBuffers = 4
	aheadSize    = 256 << 10
)

func readAhead(r io.Reader) *ahead {
	a := &ahead{full: make(chan []byte, aheadBuffers), empty: make(chan []byte, aheadBuffers)}
	for range aheadBuffers {
		a.empty <- make([]byte, aheadSize)
	}
	go a.fill(r)
	return a
}

func (a *ahead) fill(r io.Reader) {
	defer close(a.full)
	for buf := range a.empty {
		n := 0
		var err error
		for n < len(buf) && err == nil { // io.ReadFull would hide that a stream was cut off
			var k int
			k, err = r.Read(buf[n:])
			n += k
		}
		if n > 0 {
			a.full <- buf[:n]
		}
		if err != nil {
			a.err = err
			return
		}
	}
}

func (a *ahead) Read(p []byte) (int, error) {
	if len(a.rest) == 0 {
		if a.now != nil {
			a.empty <- a.now[:aheadSize]
			a.now = nil
		}
		buf, ok := <-a.full
		if !ok {
			return 0, a.err
		}
		a.now, a.rest = buf, buf
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// stop ends the goroutine and waits for it.
func (a *ahead) stop() {
	close(a.empty)
	for range a.full { // until it is closed
	}
}
