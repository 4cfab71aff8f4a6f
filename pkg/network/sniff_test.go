package network

import (
	"encoding/binary"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// sniffer counts the packets that reach the namespace that it was made in.
type sniffer struct {
	fd   int
	done chan struct{}
	wg   sync.WaitGroup

	mu    sync.Mutex
	seen  map[netip.Addr]int // by destination
	marks map[string]int     // by the first 8 bytes of a UDP payload
	from  map[netip.Addr]int // by source
}

func newSniffer() (*sniffer, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
	if err != nil {
		return nil, err
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20000}); err != nil {
		return nil, err
	}
	s := &sniffer{fd: fd, done: make(chan struct{}), seen: map[netip.Addr]int{}, marks: map[string]int{}, from: map[netip.Addr]int{}}
	s.wg.Go(s.run)
	return s, nil
}

func (s *sniffer) run() {
	b := make([]byte, 2048)
	for {
		select {
		case <-s.done:
			_ = unix.Close(s.fd)
			return
		default:
		}
		n, from, err := unix.Recvfrom(s.fd, b, 0)
		if err != nil {
			continue
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		s.count(b[:n])
	}
}

func (s *sniffer) count(frame []byte) {
	if len(frame) < 34 || binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_IP {
		return
	}
	ip := frame[14:]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from[netip.AddrFrom4([4]byte(ip[12:16]))]++
	s.seen[netip.AddrFrom4([4]byte(ip[16:20]))]++
	if ip[9] == unix.IPPROTO_UDP && len(ip) >= 36 {
		s.marks[string(ip[28:36])]++
	}
}

func (s *sniffer) close() error {
	close(s.done)
	s.wg.Wait()
	return nil
}

func (s *sniffer) to(addr string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[netip.MustParseAddr(addr)]
}

func (s *sniffer) source(addr netip.Addr) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.from[addr]
}

func (s *sniffer) mark(m string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.marks[m]
}

func htons(n uint16) uint16 { return n<<8 | n>>8 }
