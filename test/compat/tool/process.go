package main

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

func hog(args []string) error {
	var size string
	if err := arguments(args, &size); err != nil {
		return err
	}
	mib, err := strconv.Atoi(size)
	if err != nil {
		return err
	}
	var held [][]byte
	for range mib {
		held = append(held, bytes.Repeat([]byte{1}, 1<<20))
	}
	fmt.Fprintln(os.Stdout, "holds", len(held))
	return forever()
}

// forever waits for a signal that ends the program.
func forever() error {
	<-time.After(math.MaxInt64)
	return nil
}

func spin(args []string) error {
	var text string
	if err := arguments(args, &text); err != nil {
		return err
	}
	seconds, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	runtime.GOMAXPROCS(4)
	var busy sync.WaitGroup
	for range 4 {
		busy.Go(func() {
			for time.Now().Before(end) {
			}
		})
	}
	busy.Wait()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "%.2f\n", time.Duration(usage.Utime.Nano()+usage.Stime.Nano()).Seconds())
	return nil
}

func signals([]string) error {
	came := make(chan os.Signal, 16)
	signal.Notify(came, unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH)
	ready()
	for s := range came {
		name := unix.SignalName(s.(unix.Signal))
		fmt.Fprintln(os.Stdout, name)
		if name == "SIGUSR2" {
			return nil
		}
	}
	return nil
}

func watch(args []string) error {
	var dir, name string
	if err := arguments(args, &dir, &name); err != nil {
		return err
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return err
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO); err != nil {
		return err
	}
	ready()
	buffer := make([]byte, 4096)
	for {
		n, err := unix.Read(fd, buffer)
		if err != nil {
			return err
		}
		if n == 0 {
			return errors.New("inotify ended")
		}
		for rest := buffer[:n]; len(rest) >= unix.SizeofInotifyEvent; {
			length := int(rest[12]) | int(rest[13])<<8 // of the name, after the header
			entry := rest[unix.SizeofInotifyEvent : unix.SizeofInotifyEvent+length]
			if strings.TrimRight(string(entry), "\x00") == name {
				fmt.Fprintln(os.Stdout, "saw", name)
				return nil
			}
			rest = rest[unix.SizeofInotifyEvent+length:]
		}
	}
}
