package debian

import (
	"bytes"
	"strings"
)

// lastLines is how much of mmdebstrap's output an error shows.
const lastLines = 12

// maxLine is the longest line that is kept, in bytes.
const maxLine = 2048

// lines hands out what mmdebstrap writes to standard error line by line,
// without its progress bars, and keeps the last ones.
type lines struct {
	emit    func(string)
	hide    string // lines that hold it are kept, not emitted: they name the host's files
	partial []byte
	kept    []string
}

func (l *lines) Write(p []byte) (int, error) {
	l.partial = append(l.partial, p...)
	for {
		i := bytes.IndexByte(l.partial, '\n')
		if i < 0 {
			break
		}
		l.line(string(l.partial[:i]))
		l.partial = l.partial[i+1:]
	}
	if len(l.partial) > maxLine {
		l.flush()
	}
	return len(p), nil
}

func (l *lines) flush() {
	if len(l.partial) > 0 {
		l.line(string(l.partial))
		l.partial = nil
	}
}

func (l *lines) line(s string) {
	if i := strings.LastIndexByte(s, '\r'); i >= 0 {
		s = s[i+1:]
	}
	s = strings.TrimPrefix(strings.TrimSpace(s), "I: ")
	if s == "" {
		return
	}
	if l.kept = append(l.kept, s); len(l.kept) > lastLines {
		l.kept = l.kept[1:]
	}
	if l.hide == "" || !strings.Contains(s, l.hide) && !strings.HasPrefix(s, "running special hook") {
		l.emit(s)
	}
}

func (l *lines) contains(s string) bool { return strings.Contains(l.last(), s) }

func (l *lines) last() string { return strings.Join(l.kept, "\n") }
