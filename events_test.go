package innerdock_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/innerdock/innerdock"
)

func readEvents(text string) (read []string, err error) {
	for event, failure := range innerdock.Events(strings.NewReader(text)) {
		if failure != nil {
			return read, failure
		}
		read = append(read, event.Name+"="+string(event.Data))
	}
	return read, nil
}

func TestEvents(t *testing.T) {
	read, err := readEvents(": hello\n\nevent: stdout\ndata: {\"a\":\ndata: 1}\nid: 7\n\n:\n\nevent:exit\ndata:{}\n\n")
	if got := strings.Join(read, " "); got != `stdout={"a":1} exit={}` || err != nil {
		t.Fatalf("read %q, %v", got, err)
	}
	if _, err := readEvents("event: stdout\ndata: {"); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a cut event gave %v", err)
	}
	if _, err := readEvents("data: " + strings.Repeat("x", 5<<20) + "\n\n"); err == nil {
		t.Error("an endless line was accepted")
	}
	if _, err := readEvents(strings.Repeat("data: "+strings.Repeat("x", 1<<20)+"\n", 6) + "\n"); err == nil {
		t.Error("an endless event was accepted")
	}
}

func FuzzEvents(f *testing.F) {
	f.Add("event: a\ndata: b\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		read, _ := readEvents(text)
		for _, event := range read {
			if len(event) > len(text)+1 {
				t.Fatalf("an event of %d bytes out of %d", len(event), len(text))
			}
		}
	})
}
