package output

import (
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	readSize  = 32 << 10
	drainMost = 1 << 20 // the most that an ordinary pipe can hold
)

var scratch = sync.Pool{New: func() any { return new([readSize]byte) }}

// Pipe carries the output of a process, and of its descendants, to a Buffer.
type Pipe struct {
	to   *Buffer
	file *os.File
	raw  syscall.RawConn

	closing   chan struct{} // closed by Close
	closeOnce sync.Once

	mu  sync.Mutex // makes reading and storing one step
	eof chan struct{}
	end bool
}

// NewPipe makes a pipe. It returns the end to write to, a blocking descriptor
// that is closed on exec and that the caller closes once the child has it.
func NewPipe(to *Buffer) (p *Pipe, write int, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, -1, err
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, -1, err
	}
	p = &Pipe{to: to, file: os.NewFile(uintptr(fds[0]), "pipe"), eof: make(chan struct{}), closing: make(chan struct{})}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		p.file.Close()
		unix.Close(fds[1])
		return nil, -1, err
	}
	return p, fds[1], nil
}

// Copy carries output until the last writer is gone or Close is called, at the
// pace of the Buffer's readers.
func (p *Pipe) Copy() {
	for !p.ended() {
		p.to.Room(p.closing)
		err := p.raw.Read(func(fd uintptr) bool {
			_, again := p.read(fd)
			return !again
		})
		if err != nil { // closed
			p.finish()
		}
	}
	p.file.Close()
}

// Drain carries what is in the pipe now, so that everything that an ended
// process wrote is in the Buffer when Drain returns. It does not block.
func (p *Pipe) Drain() {
	for total := 0; total < drainMost; {
		n, again := 0, false
		err := p.raw.Control(func(fd uintptr) { n, again = p.read(fd) })
		if err != nil || again || n <= 0 {
			return
		}
		total += n
	}
}

// EOF returns a channel that is closed when the last writer is gone.
func (p *Pipe) EOF() <-chan struct{} { return p.eof }

// Close ends Copy. Writers that are left get SIGPIPE.
func (p *Pipe) Close() {
	p.closeOnce.Do(func() { close(p.closing) })
	p.file.Close()
}

// read moves bytes from the pipe to the Buffer. It reports how many, and
// whether the pipe is empty although it still has writers.
func (p *Pipe) read(fd uintptr) (n int, again bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.end {
		return 0, false
	}
	buf := scratch.Get().(*[readSize]byte)
	defer scratch.Put(buf)
	for {
		n, err := syscall.Read(int(fd), buf[:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return 0, true
		case err != nil || n == 0:
			p.finishLocked()
			return 0, false
		}
		_, _ = p.to.Write(buf[:n])
		return n, false
	}
}

func (p *Pipe) ended() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.end
}

func (p *Pipe) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finishLocked()
}

func (p *Pipe) finishLocked() {
	if !p.end {
		p.end = true
		close(p.eof)
	}
}
