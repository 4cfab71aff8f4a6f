package cli

import (
	"cmp"
	"context"
	"fmt"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/innerdock/innerdock"
)

func (a *app) dockerContextCommand() *cobra.Command {
	var flags endpointFlags
	var remove bool
	cmd := &cobra.Command{
		Use:   "docker-context [flags] SANDBOX",
		Short: "Make a docker context for a sandbox's Docker",
		Long: `Make a context of the docker command for a sandbox's Docker, and print its name:
innerdock-SANDBOX. One that is there is updated. The docker command must be on
this machine. See docker-host for how the sandbox is reached.`,
		Example: `  innerdock docker-context build
  docker --context innerdock-build ps
  innerdock docker-context --rm build`,
		Args: cobra.ExactArgs(1),
	}
	flags.register(cmd)
	cmd.Flags().BoolVar(&remove, "rm", false, "remove it, and stop the sandbox's forwarder")
	cmd.RunE = a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
		if remove {
			return a.removeContext(ctx, c, args[0])
		}
		sandbox, e, err := a.endpoint(ctx, c, args[0], flags)
		if err != nil {
			return err
		}
		name := contextName(sandbox)
		verb := "create"
		if _, err := dockerCommand(ctx, "context", "inspect", name); err == nil {
			verb = "update"
		}
		if _, err := dockerCommand(ctx, "context", verb, name, "--docker", "host="+e.DockerHost,
			"--description", "innerdock sandbox "+sandbox.ID); err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.Stdout, name)
		return err
	})
	return cmd
}

// contextName is the name of a sandbox's context.
func contextName(sandbox innerdock.Sandbox) string {
	return "innerdock-" + cmp.Or(sandbox.Name, sandbox.ID)
}

// removeContext works for a sandbox that is gone as well.
func (a *app) removeContext(ctx context.Context, c *innerdock.Client, name string) error {
	sandbox, err := c.Sandbox(ctx, name)
	if err != nil {
		sandbox = innerdock.Sandbox{Name: name}
	} else if err := a.stopForwarder(ctx, sandbox.ID); err != nil {
		return err
	}
	_, err = dockerCommand(ctx, "context", "rm", "--force", contextName(sandbox))
	return err
}

// dockerCommand runs this machine's docker command.
func dockerCommand(ctx context.Context, args ...string) (string, error) {
	program, err := exec.LookPath("docker")
	if err != nil {
		return "", innerdock.Errorf(innerdock.CodeUnsupported,
			"there is no docker command on this machine; install one, or use `innerdock docker-host`")
	}
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return "", innerdock.Errorf(innerdock.CodeUnavailable, "`docker %s` failed: %s", strings.Join(args, " "), strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
