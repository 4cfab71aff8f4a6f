package docker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/innerdock/innerdock/pkg/agent/output"
	"github.com/innerdock/innerdock/pkg/agent/process"
)

// internalChain holds the rules of networks that are cut off from the world.
const internalChain = "INNERDOCK-INTERNAL"

// protocols are those that reach the world. A gVisor as it comes refuses the
// NAT of the last.
var protocols = []string{"tcp", "udp", "icmp"}

// rules are the NAT of containers to the world, which gVisor cannot do with
// MASQUERADE, nor for other protocols, and the walls between networks: from a
// bridge, the way leads out by eth0 and nowhere else. What stays on one bridge
// does not come here. gVisor ignores a "!", so there is none.
func rules(address netip.Addr, protocols []string) string {
	var nat strings.Builder
	for _, p := range protocols {
		fmt.Fprintf(&nat, "-A POSTROUTING -o eth0 -p %s -j SNAT --to-source %s\n", p, address)
	}
	return fmt.Sprintf(`*nat
%sCOMMIT
*filter
:FORWARD DROP [0:0]
:%[2]s - [0:0]
-A FORWARD -j %[2]s
-A FORWARD -i eth0 -j ACCEPT
-A FORWARD -o eth0 -j ACCEPT
COMMIT
`, nat.String(), internalChain)
}

// internalRules replace the ones of earlier internal networks.
func internalRules(bridges []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*filter\n:%s - [0:0]\n", internalChain)
	for _, bridge := range bridges {
		fmt.Fprintf(&b, "-A %[1]s -i %[2]s -j DROP\n-A %[1]s -o %[2]s -j DROP\n", internalChain, bridge)
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

// restoreRules adds rules with one program, in one go.
func (s *Supervisor) restoreRules(ctx context.Context, rules string) error {
	env := s.cfg.Environ(nil)
	path, err := process.Lookup("iptables-legacy-restore", "/", env)
	if err != nil {
		path, err = process.Lookup("iptables-restore", "/", env) // before there were two
	}
	if err != nil {
		return errors.New("iptables-legacy-restore not found; install iptables in the image, as Image().with_docker() does")
	}
	log := output.NewBuffer(logTail)
	p, err := process.Start(s.cfg.Reaper, process.Command{Path: path, Args: []string{filepath.Base(path), "--noflush"},
		Dir: "/", Env: env, Stdin: true, Stdout: log})
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.WriteStdin(ctx, strings.NewReader(rules), true); err != nil {
		_ = p.Signal(syscall.SIGKILL)
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		_ = p.Signal(syscall.SIGKILL)
		<-p.Done()
	}
	if code := p.Exit().Code; code != 0 {
		return fmt.Errorf("%s failed (exit code %d): %s", filepath.Base(path), code, strings.TrimSpace(log.Tail(logTail)))
	}
	return nil
}

// bridgeNetwork is what the API says of a network.
type bridgeNetwork struct {
	ID       string
	Internal bool
	Options  map[string]string
}

// bridge is the name of the network's bridge, or "" if it could not be one.
func (n bridgeNetwork) bridge() string {
	name := n.Options["com.docker.network.bridge.name"]
	if name == "" && len(n.ID) >= 12 {
		name = "br-" + n.ID[:12]
	}
	if name == "" || len(name) >= 16 || strings.ContainsAny(name, " \t\r\n\"'\\+!/") {
		return ""
	}
	return name
}

// isolate cuts the internal networks that dockerd has off from the world.
// dockerd does it with rules of its own where it may; a missing route alone
// would stop no container that can make one.
func (s *Supervisor) isolate(ctx context.Context, client *http.Client) error {
	s.isolating.Lock()
	defer s.isolating.Unlock()
	var networks []bridgeNetwork
	if err := get(ctx, client, "/networks?filters="+`%7B%22driver%22%3A%5B%22bridge%22%5D%7D`, &networks); err != nil {
		return fmt.Errorf("asking dockerd for its networks: %w", err)
	}
	var bridges []string
	for _, n := range networks {
		if name := n.bridge(); n.Internal && name != "" {
			bridges = append(bridges, name)
		}
	}
	slices.Sort(bridges)
	if slices.Equal(bridges, s.isolated) {
		return nil
	}
	if err := s.restoreRules(ctx, internalRules(bridges)); err != nil {
		return fmt.Errorf("cutting the internal networks off: %w", err)
	}
	s.isolated = bridges
	return nil
}
