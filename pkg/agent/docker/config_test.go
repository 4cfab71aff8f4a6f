package docker

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/wire"
)

func TestMinimalIsTheSeedsFlags(t *testing.T) {
	r := newRig(t, "dockerd")
	if _, _, err := r.start(time.Minute, wire.DockerStart{Profile: innerdock.ProfileMinimal, Mirror: "http://10.0.0.1:5000"}); err != nil {
		t.Fatal(err)
	}
	want := "flags: --host=unix:///var/run/docker.sock --storage-driver=vfs --iptables=false --ip-forward=false --bridge=none\n"
	if !strings.Contains(r.log(), want) {
		t.Errorf("log %q, want %q", r.log(), want)
	}
	config, err := os.ReadFile(filepath.Join(r.root, "etc/docker/daemon.json"))
	if err != nil || !strings.Contains(string(config), `"http://10.0.0.1:5000"`) {
		t.Errorf("daemon.json: %s %v", config, err)
	}
}

func TestADockerdBeforeNetworkOptions(t *testing.T) {
	r := newRig(t, "dockerd")
	r.does("dockerd", "old")
	if _, _, err := r.start(time.Minute, wire.DockerStart{Profile: innerdock.ProfileFull, MTU: 1400}); err != nil {
		t.Fatal(err)
	}
	if want := "-docker-proxy --mtu=1400\n"; !strings.Contains(r.log(), want) {
		t.Errorf("log %q, want %q", r.log(), want)
	}
}

func TestTheImagesConfigurationWins(t *testing.T) {
	const base = "--host=unix:///run/docker/innerdock.sock --iptables=false --ip6tables=false --userland-proxy-path=/run/docker/innerdock-docker-proxy"
	noHost := strings.TrimPrefix(base, "--host=unix:///run/docker/innerdock.sock ")
	const minimalNoHost = "--storage-driver=vfs --iptables=false --ip-forward=false --bridge=none"
	hosts := func(all ...string) string {
		return "{\n  \"hosts\": [\n    " + strings.Join(all, ",\n    ") + "\n  ]\n}\n"
	}
	for _, c := range []struct {
		name, file, mirror string
		minimal            bool
		mtu                int
		flags, after, err  string
	}{
		{name: "none", flags: base},
		{name: "empty", file: " \n", flags: base, after: " \n"},
		{name: "mtu", mtu: 1400, flags: base + " --mtu=1400 --default-network-opt=bridge=com.docker.network.driver.mtu=1400"},
		{name: "mtu of the image", file: `{"mtu":1300}`, mtu: 1400, after: `{"mtu":1300}`,
			flags: base + " --default-network-opt=bridge=com.docker.network.driver.mtu=1400"},
		{name: "its own firewall and mirrors", file: `{"iptables":true,"registry-mirrors":[]}`, mirror: "http://m",
			flags: "--host=unix:///run/docker/innerdock.sock --ip6tables=false --userland-proxy-path=/run/docker/innerdock-docker-proxy", after: `{"iptables":true,"registry-mirrors":[]}`},
		{name: "merged", file: `{"debug":true,"big":12345678901234567890}`, mirror: "http://m", flags: base,
			after: "{\n  \"big\": 12345678901234567890,\n  \"debug\": true,\n  \"insecure-registries\": [\n    \"http://m\"\n  ],\n  \"registry-mirrors\": [\n    \"http://m\"\n  ]\n}\n"},
		{name: "its own insecure registries", file: `{"insecure-registries":["own:5000"]}`, mirror: "http://m", flags: base,
			after: "{\n  \"insecure-registries\": [\n    \"own:5000\",\n    \"http://m\"\n  ],\n  \"registry-mirrors\": [\n    \"http://m\"\n  ]\n}\n"},
		{name: "hosts", file: `{"hosts":["unix:///var/run/docker.sock","tcp://127.0.0.1:2375"]}`, flags: noHost,
			after: hosts(`"unix:///run/docker/innerdock.sock"`, `"tcp://127.0.0.1:2375"`)},
		{name: "hosts by other names", file: `{"hosts":["unix:///run/docker.sock","unix://","fd://"]}`, flags: noHost, after: hosts(`"unix:///run/docker/innerdock.sock"`)},
		{name: "hosts elsewhere", file: `{"hosts":["tcp://127.0.0.1:2375"]}`, flags: noHost,
			after: hosts(`"unix:///run/docker/innerdock.sock"`, `"tcp://127.0.0.1:2375"`)},
		{name: "hosts of an earlier start", file: `{"hosts":["unix:///run/docker/innerdock.sock"]}`, flags: noHost,
			after: `{"hosts":["unix:///run/docker/innerdock.sock"]}`},
		{name: "hosts that are none", file: `{"hosts":"tcp://127.0.0.1:2375"}`, err: "hosts: json"},
		{name: "hosts in profile minimal", file: `{"hosts":["unix:///run/docker.sock"]}`, minimal: true, flags: minimalNoHost, after: `{"hosts":["unix:///run/docker.sock"]}`},
		{name: "hosts elsewhere in profile minimal", file: `{"hosts":["tcp://127.0.0.1:2375"]}`, minimal: true, flags: minimalNoHost,
			after: hosts(`"unix:///var/run/docker.sock"`, `"tcp://127.0.0.1:2375"`)},
		{name: "nftables", file: `{"firewall-backend":"nftables"}`, err: "firewall-backend is nftables"},
		{name: "iptables", file: `{"firewall-backend":"iptables"}`, flags: base, after: `{"firewall-backend":"iptables"}`},
		{name: "not JSON", file: `{`, err: "not valid JSON"},
		{name: "not an object", file: `[]`, err: "not valid JSON"},
		{name: "null", file: `null`, mirror: "http://m", flags: base, after: "{\n  \"insecure-registries\": [\n    \"http://m\"\n  ],\n  \"registry-mirrors\": [\n    \"http://m\"\n  ]\n}\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &Supervisor{cfg: Config{Root: t.TempDir()}}
			path := s.path("/etc/docker/daemon.json")
			if c.file != "" {
				os.MkdirAll(filepath.Dir(path), 0o755)
				os.WriteFile(path, []byte(c.file), 0o644)
			}
			req := wire.DockerStart{Profile: innerdock.ProfileFull, Mirror: c.mirror, MTU: c.mtu}
			if c.minimal {
				req.Profile = innerdock.ProfileMinimal
			}
			config, err := s.configure(req)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(arguments(req, config), " "); got != c.flags {
				t.Errorf("flags\n %s, want\n %s", got, c.flags)
			}
			if got, _ := os.ReadFile(path); string(got) != c.after {
				t.Errorf("daemon.json\n %s, want\n %s", got, c.after)
			}
		})
	}
}

func FuzzConfig(f *testing.F) {
	for _, s := range []string{"", "{}", "null", `{"hosts":1}`, `{"registry-mirrors":null}`, `{"a":{"b":[1,2]}}`} {
		f.Add(s)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, body string) {
		s := &Supervisor{cfg: Config{Root: dir}}
		path := s.path("/etc/docker/daemon.json")
		os.MkdirAll(filepath.Dir(path), 0o755)
		os.WriteFile(path, []byte(body), 0o644)
		if _, err := s.configure(wire.DockerStart{Profile: innerdock.ProfileFull, Mirror: "http://m"}); err != nil {
			return
		}
		after, _ := os.ReadFile(path)
		var config map[string]any
		if err := json.Unmarshal(after, &config); err != nil || !strings.Contains(string(after), "registry-mirrors") {
			t.Errorf("%q became %q: %v", body, after, err)
		}
	})
}

// The public socket belongs to the group that dockerd would give it.
func TestSocketGroup(t *testing.T) {
	for _, c := range []struct {
		group, config string
		want          int
	}{
		{group: "root:x:0:\ndocker:x:999:me\n", want: 999},
		{group: "root:x:0:\n", want: 0},
		{want: 0},
		{group: "docker:x:999:\nwheel:x:10:\n", config: `{"group":"wheel"}`, want: 10},
		{group: "docker:x:999:\n", config: `{"group":"123"}`, want: 123},
		{group: "docker:x:99999999999999999999:\nbroken\n", want: 0},
	} {
		s := &Supervisor{cfg: Config{Root: t.TempDir()}}
		os.MkdirAll(s.path("/etc/docker"), 0o755)
		os.WriteFile(s.path("/etc/group"), []byte(c.group), 0o644)
		if c.config != "" {
			os.WriteFile(s.path("/etc/docker/daemon.json"), []byte(c.config), 0o644)
		}
		if got := s.socketGroup(); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}
