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
	"github.com/innerdock/innerdock/pkg/agent/wire"
)

const (
	daemonHost = "unix:///var/run/docker.sock"
	defaultMTU = 1500 // dockerd's own
)

// flag is one of dockerd's, with the key of daemon.json that says the same.
// dockerd refuses to start when both do, so the image's daemon.json wins.
type flag struct {
	name, value string
	keys        []string
}

// flagsOf returns the flags of a profile.
func flagsOf(req wire.DockerStart) []flag {
	host := flag{"--host", daemonHost, []string{"hosts"}}
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
		{"--storage-driver", "overlay2", []string{"storage-driver"}},
		{"--iptables", "false", []string{"iptables"}},
		{"--ip6tables", "false", []string{"ip6tables"}},
	}
	if req.MTU > 0 && req.MTU != defaultMTU {
		mtu := strconv.Itoa(req.MTU)
		flags = append(flags,
			flag{"--mtu", mtu, []string{"mtu"}},
			flag{"--default-network-opt", "bridge=com.docker.network.driver.mtu=" + mtu, []string{"default-network-opts"}})
	}
	return flags
}

// configure merges the registry cache into daemon.json, unless the image names
// mirrors of its own, and returns what is configured.
func (s *Supervisor) configure(req wire.DockerStart) (daemonConfig, error) {
	path := s.path("/etc/docker/daemon.json")
	config, err := readConfig(path)
	if err != nil {
		return nil, err
	}
	if err := checkHosts(config); err != nil {
		return nil, err
	}
	if _, ok := config["registry-mirrors"]; !ok && req.Mirror != "" {
		if err := config.add("registry-mirrors", req.Mirror); err != nil {
			return nil, err
		}
		// BuildKit asks a mirror by https, whatever its URL says, unless it is
		// among these.
		if host, plain := strings.CutPrefix(req.Mirror, "http://"); plain {
			if err := config.add("insecure-registries", host); err != nil {
				return nil, err
			}
		}
		if err := writeConfig(path, config); err != nil {
			return nil, err
		}
	}
	return config, nil
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

// add appends to the list of strings that key holds.
func (c daemonConfig) add(key, value string) error {
	var list []string
	if raw, ok := c[key]; ok {
		if err := json.Unmarshal(raw, &list); err != nil {
			return fmt.Errorf("the image's /etc/docker/daemon.json: %s: %w", key, err)
		}
	}
	raw, err := json.Marshal(append(list, value))
	c[key] = raw
	return err
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

// checkHosts refuses a daemon.json that makes dockerd listen elsewhere only:
// its clients and this supervisor would not find it.
func checkHosts(config daemonConfig) error {
	raw, ok := config["hosts"]
	if !ok {
		return nil
	}
	var hosts []string
	if err := json.Unmarshal(raw, &hosts); err != nil {
		return fmt.Errorf("the image's /etc/docker/daemon.json: hosts: %w", err)
	}
	if !slices.Contains(hosts, daemonHost) && !slices.Contains(hosts, "unix:///run/docker.sock") {
		return fmt.Errorf("the image's /etc/docker/daemon.json: hosts lacks %s; add it", daemonHost)
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
