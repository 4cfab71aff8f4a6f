package wire

import (
	"errors"
	"io"
)

// ErrLineTooLong is returned for a line of more than MaxLine bytes.
var ErrLineTooLong = errors.New("line of the handshake is too long")

// ReadLine reads up to a newline, which it drops, and not a byte further: what
// follows the handshake belongs to the session. It reads byte by byte, which is
// right for the two short lines of a handshake and for nothing else.
func ReadLine(r io.Reader) ([]byte, error) {
	var line []byte
	var b [1]byte
	for len(line) < MaxLine {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return nil, err
		}
		if b[0] == '\n' {
			return line, nil
		}
		line = append(line, b[0])
	}
	return nil, ErrLineTooLong
}
