package debian

import (
	"bufio"
	"context"
	"os/exec"
	"regexp"
	"strings"

	"github.com/innerdock/innerdock"
)

// hostConfig is what a base takes over from the host's own apt.
type hostConfig struct {
	mirror   string   // URI of the Debian archive; "" when the host names none
	security string   // URI of its security archive; "" when it names none
	options  []string // apt.conf lines, kept in the base
	proxies  []string // environment of mmdebstrap; not kept, they may hold passwords
}

// Sources are lines of a sources.list for a suite at the mirrors that the host
// itself uses. There are none if the host has no Debian sources: mmdebstrap then
// uses Debian's own.
func Sources(ctx context.Context, suite string) ([]string, error) {
	host, err := readHost(ctx)
	return host.sources(suite), err
}

func (h hostConfig) sources(suite string) []string {
	if h.mirror == "" {
		return nil
	}
	lines := []string{
		"deb " + h.mirror + " " + suite + " main",
		"deb " + h.mirror + " " + suite + "-updates main",
	}
	if h.security != "" {
		lines = append(lines, "deb "+h.security+" "+suite+"-security main")
	}
	return lines
}

// readHost asks apt for the host's mirrors and options.
func readHost(ctx context.Context) (hostConfig, error) {
	targets, err := exec.CommandContext(ctx, "apt-get", "indextargets",
		"--format", "$(REPO_URI) $(ORIGIN) $(LABEL) $(COMPONENT)", "Created-By: Packages").Output()
	if err != nil {
		return hostConfig{}, innerdock.Internal(err, "reading the host's apt sources")
	}
	dump, err := exec.CommandContext(ctx, "apt-config", "dump", "Acquire").Output()
	if err != nil {
		return hostConfig{}, innerdock.Internal(err, "reading the host's apt configuration")
	}
	host := parseTargets(string(targets))
	host.options, host.proxies = parseOptions(string(dump))
	return host, nil
}

// parseTargets finds the host's mirror of Debian in what apt-get indextargets
// prints. A host that is not Debian, or has never run apt-get update, has none.
func parseTargets(targets string) hostConfig {
	host := hostConfig{}
	for line := range strings.Lines(targets) {
		f := strings.Fields(line)
		if len(f) != 4 || f[1] != "Debian" || f[3] != "main" {
			continue
		}
		uri := strings.TrimSuffix(f[0], "/")
		switch {
		case !strings.HasPrefix(uri, "http://") && !strings.HasPrefix(uri, "https://"):
		case strings.Contains(uri, "@"): // a password has no place in an image
		case f[2] == "Debian" && host.mirror == "":
			host.mirror = uri
		case f[2] == "Debian-Security" && host.security == "":
			host.security = uri
		}
	}
	return host
}

var (
	optionLine   = regexp.MustCompile(`^(Acquire::[A-Za-z0-9:._-]+) "([^"]*)";$`)
	keptOptions  = regexp.MustCompile(`(?i)^Acquire::(Check-Valid-Until|Check-Date|Retries|ForceIPv4|ForceIPv6)$`)
	proxyOptions = regexp.MustCompile(`(?i)^Acquire::(https?)::Proxy$`)
)

// parseOptions picks from `apt-config dump Acquire` what the host's network and
// mirror need.
func parseOptions(dump string) (options, proxies []string) {
	sc := bufio.NewScanner(strings.NewReader(dump))
	for sc.Scan() {
		m := optionLine.FindStringSubmatch(sc.Text())
		if m == nil || m[2] == "" {
			continue
		}
		if keptOptions.MatchString(m[1]) {
			options = append(options, m[0])
		}
		if p := proxyOptions.FindStringSubmatch(m[1]); p != nil {
			proxies = append(proxies, strings.ToLower(p[1])+"_proxy="+m[2])
		}
	}
	return options, proxies
}
