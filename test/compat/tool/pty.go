package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// terminal runs a command on a new terminal of 24 × 80 and follows the lines of
// standard input:
//
//	expect TEXT   wait until the terminal has shown it, after what was expected before
//	send TEXT     type TEXT; \r, \x03 and the like are understood
//	size ROWS COLUMNS
//
// It prints all that the terminal showed and ends as the command does.
func terminal(args []string) error {
	if len(args) == 0 {
		return errors.New("a command is wanted")
	}
	master, slave, err := openPTY()
	if err != nil {
		return err
	}
	if err := resize(master, 24, 80); err != nil {
		return err
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	slave.Close()
	shown := make(chan []byte)
	go func() {
		defer close(shown)
		for {
			buffer := make([]byte, 4096)
			n, err := master.Read(buffer)
			if err != nil {
				return
			}
			shown <- buffer[:n]
		}
	}()
	s := &screen{master: master, shown: shown}
	script := bufio.NewScanner(os.Stdin)
	for script.Scan() {
		if err := s.follow(script.Text()); err != nil {
			_ = cmd.Process.Kill()
			return fmt.Errorf("%s: %w; the terminal showed %q", script.Text(), err, s.all.String())
		}
	}
	for chunk := range shown {
		s.all.Write(chunk)
	}
	fmt.Fprint(os.Stdout, s.all.String())
	var exit *exec.ExitError
	if err := cmd.Wait(); errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	return nil
}

func openPTY() (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	return master, slave, err
}

func resize(master *os.File, rows, columns uint16) error {
	return unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
}

// screen is what a terminal has shown.
type screen struct {
	master *os.File
	shown  <-chan []byte
	all    bytes.Buffer
	seen   int // of all, by expect
}

func (s *screen) follow(line string) error {
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "expect":
		return s.expect(rest)
	case "send":
		_, err := s.master.WriteString(typed.Replace(rest))
		return err
	case "size":
		var rows, columns uint16
		if _, err := fmt.Sscan(rest, &rows, &columns); err != nil {
			return err
		}
		return resize(s.master, rows, columns)
	}
	return errors.New("expect, send or size is wanted")
}

var typed = strings.NewReplacer(`\r`, "\r", `\x03`, "\x03", `\x04`, "\x04", `\x10`, "\x10", `\x11`, "\x11")

func (s *screen) expect(text string) error {
	late := time.After(15 * time.Second)
	for {
		if at := strings.Index(s.all.String()[s.seen:], text); at >= 0 {
			s.seen += at + len(text)
			return nil
		}
		select {
		case chunk, ok := <-s.shown:
			if !ok {
				return errors.New("the terminal closed")
			}
			s.all.Write(chunk)
		case <-late:
			return errors.New("it did not come in 15 s")
		}
	}
}
