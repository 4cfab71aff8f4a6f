// Command probe measures TCP between two places that it runs in, and Docker.
//
//	probe serve ADDRESS      echoes one byte at a time, or swallows what comes
//	probe measure ADDRESS    prints {"rate": bytes a second, "latency": median seconds there and back}
//	probe docker SOCKET      prints {"Context": seconds to send a build context, "Copy": to copy as much into a container}
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"
)

// What a connection is for is its first byte.
const (
	echo    = 'e'
	swallow = 's'
)

const (
	bulk  = 256 << 20 // bytes to swallow
	trips = 2000
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "serve":
		return serve(args[1])
	case len(args) == 2 && args[0] == "measure":
		return measure(args[1])
	case len(args) == 2 && args[0] == "docker":
		return measureDocker(args[1])
	}
	return errors.New("usage: probe serve|measure ADDRESS, probe docker SOCKET")
}

func serve(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go answer(conn)
	}
}

// answer ends with the connection, and so does whatever went wrong with it.
func answer(conn net.Conn) {
	defer conn.Close()
	kind := make([]byte, 1)
	if _, err := io.ReadFull(conn, kind); err != nil {
		return
	}
	if kind[0] == echo {
		_, _ = io.CopyBuffer(struct{ io.Writer }{conn}, struct{ io.Reader }{conn}, make([]byte, 1))
		return
	}
	if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, conn, make([]byte, 256<<10)); err == nil && n == bulk {
		_, _ = conn.Write(kind)
	}
}

func measure(address string) error {
	rate, err := throughput(address)
	if err != nil {
		return err
	}
	delay, err := latency(address)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]float64{"rate": rate, "latency": delay.Seconds()})
}

// throughput returns bytes a second until the other end has all.
func throughput(address string) (float64, error) {
	conn, err := dial(address, swallow)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	block := make([]byte, 256<<10)
	began := time.Now()
	for range bulk / len(block) {
		if _, err := conn.Write(block); err != nil {
			return 0, err
		}
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(conn, block[:1]); err != nil {
		return 0, fmt.Errorf("the other end did not get all: %w", err)
	}
	return bulk / time.Since(began).Seconds(), nil
}

// latency returns the median of the time that a byte takes there and back.
func latency(address string) (time.Duration, error) {
	conn, err := dial(address, echo)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	var taken []time.Duration
	ball := make([]byte, 1)
	for range trips {
		began := time.Now()
		if _, err := conn.Write(ball); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(conn, ball); err != nil {
			return 0, err
		}
		taken = append(taken, time.Since(began))
	}
	slices.Sort(taken)
	return taken[trips/2], nil
}

func dial(address string, kind byte) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err == nil {
		_, err = conn.Write([]byte{kind})
	}
	return conn, err
}
