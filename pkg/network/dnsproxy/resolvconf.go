package dnsproxy

import (
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	resolvConfPath = "/etc/resolv.conf"
	maxResolvers   = 3 // as many as libc asks
)

// HostResolvers returns the resolvers of the host's resolv.conf, host:port.
func HostResolvers() ([]string, error) { return parse(resolvConfPath) }

// resolvConf reads the resolvers of a resolv.conf, again when it has changed.
type resolvConf struct {
	path string

	mu   sync.Mutex
	time time.Time
	size int64
	list []string
}

func (r *resolvConf) servers() ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	info, err := os.Stat(r.path)
	if err != nil {
		return nil, err
	}
	if r.list != nil && info.ModTime().Equal(r.time) && info.Size() == r.size {
		return r.list, nil
	}
	list, err := parse(r.path)
	if err != nil {
		return nil, err
	}
	r.time, r.size, r.list = info.ModTime(), info.Size(), list
	return list, nil
}

func parse(path string) ([]string, error) {
	conf, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, s := range conf.Servers[:min(len(conf.Servers), maxResolvers)] {
		out = append(out, net.JoinHostPort(s, conf.Port))
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s names no resolver", path)
	}
	return out, nil
}
