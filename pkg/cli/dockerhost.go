package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/forward"
)

// endpoint is where programs of this machine find a sandbox's Docker.
type endpoint struct {
	DockerHost string `json:"docker_host"`
	Address    string `json:"address,omitempty"` // where published ports are
}

// insideSocket is Docker's socket as containers in the sandbox can mount it.
const insideSocket = "/var/run/docker.sock"

// variables are what programs read, in the order in which they are printed.
func (e endpoint) variables() [][2]string {
	variables := [][2]string{
		{"DOCKER_HOST", e.DockerHost},
		{"TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE", insideSocket},
	}
	if e.Address != "" {
		variables = append(variables, [2]string{"TESTCONTAINERS_HOST_OVERRIDE", e.Address})
	}
	return variables
}

// endpointFlags say what kind of endpoint is wanted.
type endpointFlags struct {
	forward bool
	address string
}

func (f *endpointFlags) register(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.forward, "forward", false, "use a forwarder although the server is on this machine")
	cmd.Flags().StringVar(&f.address, "publish-address", "", "address of this machine for published ports (implies --forward; default 127.x.y.z of the sandbox's own)")
}

func (f *endpointFlags) parse(id string) (netip.Addr, error) {
	if f.address == "" {
		return forward.Loopback(id), nil
	}
	address, err := netip.ParseAddr(f.address)
	if err != nil {
		return address, usage("--publish-address %s is not an IP address", f.address)
	}
	return address, nil
}

func (a *app) dockerHostCommand() *cobra.Command {
	var flags endpointFlags
	var foreground, unset bool
	cmd := &cobra.Command{
		Use:   "docker-host [flags] SANDBOX",
		Short: "Let docker and every other Docker client use a sandbox's Docker",
		Long: `Print the shell commands that make Docker clients use a sandbox's Docker:
docker, docker compose, docker buildx, SDKs, testcontainers.

Where the server is on this machine, DOCKER_HOST is a Unix socket of the server's,
and published ports are on the sandbox's own address. Otherwise, and with
--forward, a small process in the background forwards both: a socket in
$XDG_RUNTIME_DIR/innerdock, or in a directory of your own in /tmp, and published
ports at an address 127.x.y.z that is the sandbox's alone. It ends with the
sandbox, or with --unset. TESTCONTAINERS_HOST_OVERRIDE is where published ports
are, for you too.

Paths that clients mount are the sandbox's, not this machine's.`,
		Example: `  eval "$(innerdock docker-host build)"
  docker compose up --detach && curl "http://$TESTCONTAINERS_HOST_OVERRIDE:8080"
  eval "$(innerdock docker-host --unset build)"
  innerdock docker-host --foreground --publish-address 127.0.0.1 build`,
		Args: cobra.MaximumNArgs(1),
	}
	flags.register(cmd)
	cmd.Flags().BoolVar(&foreground, "foreground", false, "forward here, until Ctrl-C")
	cmd.Flags().BoolVar(&unset, "unset", false, "undo it, and stop the sandbox's forwarder")
	cmd.RunE = a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
		switch {
		case unset:
			return a.unsetDockerHost(ctx, c, args)
		case len(args) == 0:
			return usage("name a sandbox; `innerdock ls` lists them")
		case foreground:
			return a.forwardHere(ctx, c, args[0], flags)
		}
		_, e, err := a.endpoint(ctx, c, args[0], flags)
		if err != nil {
			return err
		}
		return a.printEndpoint(e)
	})
	return cmd
}

func (a *app) printEndpoint(e endpoint) error {
	if a.format == formatJSON {
		return json.NewEncoder(a.Stdout).Encode(e)
	}
	for _, variable := range e.variables() {
		if _, err := fmt.Fprintf(a.Stdout, "export %s=%s\n", variable[0], shellQuote(variable[1])); err != nil {
			return err
		}
	}
	return nil
}

// shellQuote makes one word of text for every POSIX shell.
func shellQuote(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

func (a *app) unsetDockerHost(ctx context.Context, c *innerdock.Client, args []string) error {
	for _, variable := range (endpoint{Address: "-"}).variables() {
		if _, err := fmt.Fprintf(a.Stdout, "unset %s\n", variable[0]); err != nil {
			return err
		}
	}
	if len(args) == 0 {
		return nil
	}
	sandbox, err := c.Sandbox(ctx, args[0])
	if err != nil {
		return err
	}
	return a.stopForwarder(ctx, sandbox.ID)
}

// endpoint finds or makes the way to a sandbox's Docker, once that is ready.
func (a *app) endpoint(ctx context.Context, c *innerdock.Client, name string, flags endpointFlags) (innerdock.Sandbox, endpoint, error) {
	sandbox, err := c.Sandbox(ctx, name)
	if err != nil {
		return sandbox, endpoint{}, err
	}
	if _, err := a.awaitDocker(ctx, c, a.progress(), sandbox.ID); err != nil {
		return sandbox, endpoint{}, err
	}
	if !flags.forward && flags.address == "" {
		if path := a.localSocket(ctx, sandbox.ID); path != "" {
			return sandbox, endpoint{"unix://" + path, sandbox.Address}, nil
		}
	}
	e, err := a.forwardInBackground(ctx, sandbox.ID, flags)
	return sandbox, e, err
}

// localSocket is the server's socket for a sandbox's Docker, if this machine has it.
func (a *app) localSocket(ctx context.Context, id string) string {
	server, local := strings.CutPrefix(a.server(), "unix://")
	if !local {
		return ""
	}
	path := filepath.Join(filepath.Dir(server), "docker", id+".sock")
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return ""
	}
	_ = conn.Close()
	return path
}
