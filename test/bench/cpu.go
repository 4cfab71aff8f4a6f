package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cpuTime is what the server has used of the processors, in seconds, and what the
// programs that it has run and waited for have.
type cpuTime struct{ own, programs float64 }

// ticks of the kernel's tables in a second, on every architecture of ours.
const ticks = 100

// serverCPU asks the kernel for the process behind the server's socket, and for
// its times.
func serverCPU() (cpuTime, error) {
	path, local := strings.CutPrefix(os.Getenv("INNERDOCK_HOST"), "unix://")
	if !local {
		return cpuTime{}, fmt.Errorf("INNERDOCK_HOST is %q, and no socket of this machine", os.Getenv("INNERDOCK_HOST"))
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return cpuTime{}, err
	}
	defer func() { _ = conn.Close() }()
	raw, err := conn.SyscallConn()
	if err != nil {
		return cpuTime{}, err
	}
	var peer *unix.Ucred
	var failure error
	err = raw.Control(func(fd uintptr) { peer, failure = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err != nil || failure != nil {
		return cpuTime{}, fmt.Errorf("asking who serves the socket: %w, %w", err, failure)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", peer.Pid))
	if err != nil {
		return cpuTime{}, err
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 15 {
		return cpuTime{}, fmt.Errorf("/proc/%d/stat has %d fields", peer.Pid, len(fields))
	}
	var times [4]float64
	for i := range times {
		if times[i], err = strconv.ParseFloat(fields[11+i], 64); err != nil {
			return cpuTime{}, err
		}
	}
	return cpuTime{own: (times[0] + times[1]) / ticks, programs: (times[2] + times[3]) / ticks}, nil
}
