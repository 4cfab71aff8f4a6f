package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
)

// tailLines is how much of a failed step's output is shown.
const tailLines = 20

// progress tells on standard error what is being done: one line that is
// refreshed on a terminal, a line each otherwise.
type progress struct {
	w     io.Writer
	quiet bool
	tty   bool
	width int
	tail  []string // last lines of output, of which a terminal showed little
}

func (a *app) progress() *progress {
	p := &progress{w: a.Stderr, quiet: a.quiet}
	file, ok := a.Stderr.(*os.File)
	if !ok || a.Getenv("TERM") == "dumb" || a.Getenv("CI") != "" {
		return p
	}
	if window, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ); err == nil {
		p.tty, p.width = true, max(int(window.Col), 40)
	}
	return p
}

// say shows what is being done now.
func (p *progress) say(format string, args ...any) {
	line := printable(strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " "))
	switch {
	case p.quiet:
	case p.tty:
		if runes := []rune(line); len(runes) >= p.width {
			line = string(runes[:p.width-2]) + "…"
		}
		_, _ = fmt.Fprintf(p.w, "\r\033[K%s", line)
	default:
		_, _ = fmt.Fprintln(p.w, line)
	}
}

// build shows an event of an image build.
func (p *progress) build(name string, e innerdock.BuildEvent) {
	if name == "log" {
		p.tail = append(p.tail, e.Message)
		p.tail = p.tail[max(0, len(p.tail)-tailLines):]
	}
	if e.Step == "" || e.Step == e.Message { // the latter: a step of BuildKit begins
		p.say("%s", e.Message)
		return
	}
	p.say("%s: %s", e.Step, e.Message)
}

// done clears the line. After a failure it shows what led to it.
func (p *progress) done(failed bool) {
	if p.quiet || !p.tty {
		return
	}
	_, _ = fmt.Fprint(p.w, "\r\033[K")
	if failed {
		for _, line := range p.tail {
			_, _ = fmt.Fprintln(p.w, "  "+printable(line))
		}
	}
}
