package worker

import (
	"errors"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
)

func TestIDsNameTheirServerAndFitInterfaceNames(t *testing.T) {
	prefix := Prefix("/var/lib/innerdock")
	if prefix == Prefix("/var/lib/innerdock2") || prefix != Prefix("/var/lib/innerdock") {
		t.Fatal("a prefix does not follow from the directory alone")
	}
	seen := map[string]bool{}
	shape := regexp.MustCompile(`^` + prefix + `[a-z2-7]{8}$`)
	for range 1000 {
		id := newID(prefix)
		if !shape.MatchString(id) || seen[id] || len("idk"+id) > 15 {
			t.Fatalf("bad ID %q", id)
		}
		seen[id] = true
	}
}

func TestDeathWatch(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	closed, err := watchDeath(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	watch, err := watchDeath(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer watch.close()
	result := make(chan bool, 1)
	go func() { result <- closed.wait() }()
	closed.close()
	if <-result {
		t.Error("a closed watch told of a death")
	}
	go func() { result <- watch.wait() }()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	select {
	case dead := <-result:
		if !dead {
			t.Error("the watch ended without a death")
		}
	case <-time.After(time.Minute):
		t.Fatal("the death was not seen")
	}
	_ = cmd.Wait()
	if _, err := watchDeath(cmd.Process.Pid); !errors.Is(err, unix.ESRCH) {
		t.Errorf("watching a process that is gone: %v", err)
	}
}

func TestLinesOfAStepsOutput(t *testing.T) {
	var lines []string
	w := lineWriter{emit: func(line string) { lines = append(lines, line) }}
	w.write([]byte("one\r\ntw"))
	w.write([]byte("o\n\n"))
	w.write([]byte(strings.Repeat("x", maxOutputLine+1)))
	w.end()
	if len(lines) != 5 || lines[0] != "one" || lines[1] != "two" || lines[2] != "" || len(lines[3]) != maxOutputLine || lines[4] != "x" {
		t.Fatalf("got %.100q", lines)
	}
}

func TestADataDirectoryThatIsTooDeepIsRefused(t *testing.T) {
	long := "/" + strings.Repeat("d", 64)
	if err := CheckData(long); err != nil {
		t.Errorf("%d characters: %v", len(long), err)
	}
	if err := CheckData(long + "d"); innerdock.CodeOf(err) != innerdock.CodeInvalid || !strings.Contains(err.Error(), "--data") {
		t.Errorf("%d characters: %v", len(long)+1, err)
	}
}

func TestASandboxsLogStopsAtItsCap(t *testing.T) {
	var log strings.Builder
	w := &cappedWriter{to: &log, left: 10}
	for _, line := range []string{"12345\n", "6789\n", "1\n", "2\n"} {
		if n, err := w.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatalf("%q: %d, %v", line, n, err)
		}
	}
	if log.String() != "12345\n" {
		t.Errorf("it holds %q", log.String())
	}
}
