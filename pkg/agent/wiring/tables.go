package wiring

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of iptables' legacy interface, which netlink does not have, and the
// sizes of what they take: struct ipt_getinfo, and the heads of struct
// ipt_get_entries and struct ipt_replace.
const (
	soSetReplace = 64
	soGetInfo    = 64
	soGetEntries = 65

	nameSize    = 32
	infoSize    = 84
	entriesHead = 40
	replaceHead = 96
)

// tableNames are the tables that gVisor has.
var tableNames = []string{"nat", "filter", "raw"}

// maxTable caps a table, in bytes.
const maxTable = 16 << 20

// table is one of iptables', as the kernel tells it.
type table struct {
	name    string
	info    []byte
	entries []byte
}

// The words of struct ipt_getinfo that follow the name: valid_hooks,
// hook_entry[5], underflow[5], num_entries, size.
const (
	validHooks = nameSize
	hookWords  = nameSize + 4
	numEntries = nameSize + 44
	sizeWord   = nameSize + 48
)

// readTables reads the tables of the thread's namespace.
func readTables() ([]table, error) {
	var tables []table
	err := withSocket(func(fd int) error {
		for _, name := range tableNames {
			t := table{name: name, info: make([]byte, infoSize)}
			copy(t.info, name)
			if err := getsockopt(fd, soGetInfo, t.info); err != nil {
				return fmt.Errorf("table %s: %w", name, err)
			}
			size := binary.NativeEndian.Uint32(t.info[sizeWord:])
			if size > maxTable {
				return fmt.Errorf("table %s takes %d bytes", name, size)
			}
			request := make([]byte, entriesHead+size)
			copy(request, name)
			binary.NativeEndian.PutUint32(request[nameSize:], size)
			if err := getsockopt(fd, soGetEntries, request); err != nil {
				return fmt.Errorf("rules of table %s: %w", name, err)
			}
			t.entries = request[entriesHead:]
			tables = append(tables, t)
		}
		return nil
	})
	return tables, err
}

// replaceTables makes the tables of the thread's namespace as they were.
func replaceTables(tables []table, from, to netip.Addr) error {
	return withSocket(func(fd int) error {
		for _, t := range tables {
			if err := unix.SetsockoptString(fd, unix.SOL_IP, soSetReplace, string(t.replacement(from, to))); err != nil {
				return fmt.Errorf("rules of table %s: %w", t.name, err)
			}
		}
		return nil
	})
}

// replacement is the struct ipt_replace of a table. In ranges of one address,
// which are what SNAT and DNAT turn addresses into, to takes the place of from.
func (t table) replacement(from, to netip.Addr) []byte {
	entries := t.entries
	if from.Is4() && to.Is4() && from != to {
		entries = bytes.ReplaceAll(entries, bytes.Repeat(from.AsSlice(), 2), bytes.Repeat(to.AsSlice(), 2))
	}
	b := make([]byte, replaceHead, replaceHead+len(entries))
	copy(b, t.name)
	copy(b[nameSize:], t.info[validHooks:validHooks+4])
	copy(b[nameSize+4:], t.info[numEntries:numEntries+8]) // and size
	copy(b[nameSize+12:], t.info[hookWords:hookWords+40]) // hook_entry and underflow
	return append(b, entries...)
}

func withSocket(f func(fd int) error) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	return errors.Join(f(fd), unix.Close(fd))
}

// getsockopt fills buf, of which the kernel reads the beginning.
func getsockopt(fd, option int, buf []byte) error {
	size := uint32(len(buf))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_IP, uintptr(option),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
