package erofs

import (
	"bytes"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const blockSize = 4096

var zeros [blockSize]byte

// area writes consecutive blocks of a file. Blocks of zeros become holes.
type area struct {
	file  *os.File
	buf   []byte // not written yet
	at    int64  // where buf begins
	begun int64  // up to where the kernel was told to write to the disk
}

// writeBehind is after how many bytes the kernel is told to begin writing to
// the disk, so that the sync at the end is short.
const writeBehind = 16 << 20

func newArea(file *os.File, at int64) *area {
	return &area{file: file, buf: make([]byte, 0, 1<<20), at: at, begun: at}
}

// end is where the next byte goes.
func (a *area) end() int64 { return a.at + int64(len(a.buf)) }

func (a *area) Write(p []byte) (int, error) {
	for n := 0; n < len(p); {
		if len(a.buf) == cap(a.buf) {
			if err := a.flush(); err != nil {
				return n, err
			}
		}
		k := copy(a.buf[len(a.buf):cap(a.buf)], p[n:])
		a.buf = a.buf[:len(a.buf)+k]
		n += k
	}
	return len(p), nil
}

// fill writes exactly size bytes from r.
func (a *area) fill(r io.Reader, size int64) error {
	for size > 0 {
		if len(a.buf) == cap(a.buf) {
			if err := a.flush(); err != nil {
				return err
			}
		}
		room := min(int64(cap(a.buf)-len(a.buf)), size)
		n, err := io.ReadFull(r, a.buf[len(a.buf):int64(len(a.buf))+room])
		a.buf = a.buf[:len(a.buf)+n]
		size -= int64(n)
		if err != nil {
			if errors.Is(err, io.EOF) {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// pad writes zeros to the next multiple of n, a divisor of the block size.
func (a *area) pad(n int64) error {
	_, err := a.Write(zeros[:(n-a.end()%n)%n])
	return err
}

// flush writes the buffer, which is whole blocks except at the very end.
func (a *area) flush() error {
	for from := 0; from < len(a.buf); {
		to := from
		for to < len(a.buf) && !isZero(a.buf[to:min(to+blockSize, len(a.buf))]) {
			to = min(to+blockSize, len(a.buf))
		}
		if to > from {
			if _, err := a.file.WriteAt(a.buf[from:to], a.at+int64(from)); err != nil {
				return err
			}
		}
		from = max(to, from)
		for from < len(a.buf) && isZero(a.buf[from:min(from+blockSize, len(a.buf))]) {
			from = min(from+blockSize, len(a.buf))
		}
	}
	a.at += int64(len(a.buf))
	a.buf = a.buf[:0]
	if n := a.at - a.begun; n >= writeBehind {
		_ = unix.SyncFileRange(int(a.file.Fd()), a.begun, n, unix.SYNC_FILE_RANGE_WRITE) // a hint
		a.begun = a.at
	}
	return nil
}

func isZero(block []byte) bool { return bytes.Equal(block, zeros[:len(block)]) }

// erase makes blocks that were written zeros again, and gives their room back.
func (a *area) erase(at, size int64) error {
	size = roundUp(size)
	if size == 0 {
		return nil
	}
	if at+size > a.at {
		if err := a.flush(); err != nil {
			return err
		}
	}
	err := unix.Fallocate(int(a.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, size)
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	for end := at + size; at < end; at += blockSize {
		if _, err := a.file.WriteAt(zeros[:], at); err != nil {
			return err
		}
	}
	return nil
}

func roundUp(n int64) int64 { return (n + blockSize - 1) &^ (blockSize - 1) }
