package docker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/docker/portproxy"
	"github.com/innerdock/innerdock/pkg/agent/wire"
)

const (
	publicSocket  = "/var/run/docker.sock"
	privateSocket = "/run/docker/innerdock.sock" // behind the front
	defaultMTU    = 1500                         // dockerd's own
)

// fronted reports whether dockerd listens behind the front. In profile minimal
// it has the public socket itself, as its flags say.
func fronted(profile innerdock.DockerProfile) bool { return profile != innerdock.ProfileMinimal }

// daemonSocket is where dockerd listens.
func daemonSocket(profile innerdock.DockerProfile) string {
	if fronted(profile) {
		return privateSocket
	}
	return publicSocket
}

// networkOption is a flag that dockerd has since version 24. Before, a network has
// the MTU that its maker gives it.
const networkOption = "--default-network-opt"

// flag is one of dockerd's, with the key of daemon.json that says the same.
// dockerd refuses to start when both do, so the image's daemon.json wins.
type flag struct {
	name, value string
	keys        []string
}

// flagsOf returns the flags of a profile. The full one leaves the store of images
// to dockerd: containerd's since Docker 29, overlay2 before.
func flagsOf(req wire.DockerStart) []flag {
	host := flag{"--host", "unix://" + daemonSocket(req.Profile), []string{"hosts"}}
	if req.Profile == innerdock.ProfileMinimal {
		return []flag{
			host,
			{"--storage-driver", "vfs", []string{"storage-driver"}},
			{"--iptables", "false", []string{"iptables"}},
			{"--ip-forward", "false", []string{"ip-forward"}},
			{"--bridge", "none", []string{"bridge", "bip"}},
		}
	}
	flags := []flag{
		host,
		{"--iptables", "false", []string{"iptables"}},
		{"--ip6tables", "false", []string{"ip6tables"}},
		{"--userland-proxy-path", portproxy.Path, []string{"userland-proxy-path"}},
	}
	if req.MTU > 0 && req.MTU != defaultMTU {
		mtu := strconv.Itoa(req.MTU)
		flags = append(flags,
			flag{"--mtu", mtu, []string{"mtu"}},
			flag{networkOption, "bridge=com.docker.network.driver.mtu=" + mtu, []string{"default-network-opts"}})
	}
	return flags
}

// configure merges into daemon.json what the sandbox needs: where dockerd
// listens, if the file speaks of that, and the registry cache, unless the image
// names mirrors of its own. It returns what is configured.
func (s *Supervisor) configure(req wire.DockerStart) (daemonConfig, error) {
	path := s.path("/etc/docker/daemon.json")
	config, err := readConfig(path)
	if err != nil {
		return nil, err
	}
	changed, err := config.setHosts(req.Profile)
	if err != nil {
		return nil, err
	}
	if err := checkFirewall(req, config); err != nil {
		return nil, err
	}
	if _, ok := config["registry-mirrors"]; !ok && req.Mirror != "" {
		changed = true
		if err := config.add("registry-mirrors", req.Mirror); err != nil {
			return nil, err
		}
		// BuildKit asks a mirror by https, whatever its URL says, unless it is
		// among these; that of Docker 20.10 wants the scheme here, too, and the
		// later ones drop it.
		if strings.HasPrefix(req.Mirror, "http://") {
			if err := config.add("insecure-registries", req.Mirror); err != nil {
				return nil, err
			}
		}
	}
	if changed {
		err = writeConfig(path, config)
	}
	return config, err
}

// arguments returns dockerd's flags: those of the profile that config does not
// speak of.
func arguments(req wire.DockerStart, config daemonConfig) []string {
	var args []string
	for _, f := range flagsOf(req) {
		if !slices.ContainsFunc(f.keys, func(k string) bool { _, ok := config[k]; return ok }) {
			args = append(args, f.name+"="+f.value)
		}
	}
	return args
}

// daemonConfig is the content of daemon.json.
type daemonConfig map[string]json.RawMessage

// strings returns the list that key holds.
func (c daemonConfig) strings(key string) (list []string, err error) {
	if raw, ok := c[key]; ok {
		if err := json.Unmarshal(raw, &list); err != nil {
			return nil, fmt.Errorf("the image's /etc/docker/daemon.json: %s: %w", key, err)
		}
	}
	return list, nil
}

func (c daemonConfig) set(key string, list []string) (err error) {
	c[key], err = json.Marshal(list)
	return err
}

// add appends to the list of strings that key holds.
func (c daemonConfig) add(key, value string) error {
	list, err := c.strings(key)
	if err != nil {
		return err
	}
	return c.set(key, append(list, value))
}

// setHosts makes dockerd listen where it should, if the file names hosts:
// dockerd takes no flag then. The public socket is the front's, where there is
// one; other hosts are the user's own. It reports whether it changed anything.
func (c daemonConfig) setHosts(profile innerdock.DockerProfile) (changed bool, err error) {
	if _, ok := c["hosts"]; !ok {
		return false, nil
	}
	hosts, err := c.strings("hosts")
	if err != nil {
		return false, err
	}
	ours := "unix://" + daemonSocket(profile)
	if fronted(profile) {
		hosts = slices.DeleteFunc(hosts, isPublic)
	} else if slices.ContainsFunc(hosts, isPublic) {
		return false, nil
	}
	if slices.Contains(hosts, ours) {
		return false, nil
	}
	return true, c.set("hosts", append([]string{ours}, hosts...))
}

// isPublic reports whether a host of dockerd is the public socket, which has
// more than one name.
func isPublic(host string) bool {
	path, ok := strings.CutPrefix(host, "unix://")
	return ok && (path == "" || strings.TrimPrefix(filepath.Clean(path), "/var") == strings.TrimPrefix(publicSocket, "/var")) ||
		host == "fd://"
}

func readConfig(path string) (daemonConfig, error) {
	config := daemonConfig{}
	body, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return config, nil
	}
	if err != nil {
		return nil, err
	}
	if len(strings.TrimSpace(string(body))) == 0 {
		return config, nil
	}
	if err := json.Unmarshal(body, &config); err != nil {
		return nil, fmt.Errorf("the image's /etc/docker/daemon.json is not valid JSON: %w", err)
	}
	if config == nil { // it was null
		config = daemonConfig{}
	}
	return config, nil
}

// checkFirewall refuses a daemon.json that makes dockerd use nftables, which
// gVisor has not: it would start, and names on its networks would not resolve.
func checkFirewall(req wire.DockerStart, config daemonConfig) error {
	if req.Profile != innerdock.ProfileMinimal && string(config["firewall-backend"]) == `"nftables"` {
		return errors.New("the image's /etc/docker/daemon.json: firewall-backend is nftables, which gVisor does not have; remove it, and Docker uses iptables")
	}
	return nil
}

func writeConfig(path string, config daemonConfig) error {
	body, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(body, '\n'), 0o644)
}
