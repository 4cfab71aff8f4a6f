package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/innerdock/innerdock"
)

// sandboxFlags say what a new sandbox is like.
type sandboxFlags struct {
	image        imageFlags
	name         string
	cpu          float64
	memory       string
	disk         string
	env          []string
	docker       bool
	profile      string
	readyTimeout time.Duration
	block        bool
	allow        []string
	autoPause    time.Duration
}

func (f *sandboxFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.name, "name", "", "name, unique among your live sandboxes")
	flags.Float64Var(&f.cpu, "cpu", 0, "cores (default 1)")
	flags.StringVar(&f.memory, "memory", "", "memory, such as 512Mi or 4Gi (default 1Gi)")
	flags.StringVar(&f.disk, "disk", "", "disk for changes to the root, /tmp and Docker's data (default 10Gi)")
	flags.StringArrayVarP(&f.env, "env", "e", nil, "NAME=VALUE for every process (repeatable)")
	flags.BoolVar(&f.docker, "docker", false, "run Docker in it; installs it in the image where that is built here")
	flags.StringVar(&f.profile, "docker-profile", "", "full or minimal (default full)")
	flags.DurationVar(&f.readyTimeout, "docker-timeout", 0, "time that Docker has to become ready (default 30s)")
	flags.BoolVar(&f.block, "network-block", false, "let it reach nothing but the gateway's DNS and registry cache")
	flags.StringArrayVar(&f.allow, "network-allow", nil, "CIDR that it may reach although it is private (repeatable)")
	flags.DurationVar(&f.autoPause, "auto-pause", 0, "pause it whenever no request has been open for so long; the next one resumes it")
	f.image.register(flags)
}

// create makes the image if need be, and a sandbox from it. A signal does not
// cut the request that makes the sandbox: whoever is told about it can end it.
func (a *app) create(ctx context.Context, c *innerdock.Client, p *progress, f *sandboxFlags, image string) (innerdock.Sandbox, error) {
	env, err := parseEnv(f.env)
	if err != nil {
		return innerdock.Sandbox{}, err
	}
	id, err := f.image.resolve(ctx, c, p, image, f.docker)
	if err != nil {
		return innerdock.Sandbox{}, err
	}
	spec := innerdock.SandboxSpec{
		Name: f.name, Image: id, CPU: f.cpu, Memory: f.memory, Disk: f.disk, Env: env,
		Docker: innerdock.DockerSpec{
			Enabled: f.docker, Profile: innerdock.DockerProfile(f.profile), ReadyTimeout: f.readyTimeout.Seconds(),
		},
		Network:   innerdock.NetworkSpec{Block: f.block, Allow: f.allow},
		AutoPause: f.autoPause.Seconds(),
	}
	if err := ctx.Err(); err != nil {
		return innerdock.Sandbox{}, err
	}
	p.say("creating a sandbox")
	defer p.done(false)
	return c.CreateSandbox(a.abort, spec)
}

// awaitDocker waits for a sandbox's Docker, and says so if it takes time.
func (a *app) awaitDocker(ctx context.Context, c *innerdock.Client, p *progress, id string) (innerdock.DockerStatus, error) {
	if status, err := c.Docker(ctx, id); err != nil || status.State == innerdock.DockerReady {
		return status, err
	}
	p.say("waiting for Docker in %s", id)
	defer p.done(false)
	return c.WaitDocker(ctx, id)
}

func (a *app) createCommand() *cobra.Command {
	var flags sandboxFlags
	var wait bool
	cmd := &cobra.Command{
		Use:   "create [flags] IMAGE",
		Short: "Create a sandbox and print its ID",
		Long: `Create a sandbox and print its ID.

IMAGE is a Python version such as python3.11, an image reference such as
debian:trixie, or the ID (sha256:…) of an image that was built before. The first
two are built if need be, with what --docker, --step, --pip and --micromamba add.`,
		Example: `  innerdock create python3.11
  innerdock create --docker --cpu 2 --memory 4Gi --name build python3.11
  innerdock create --pip numpy -e STAGE=test python3.11
  innerdock create --auto-pause 10m python3.11`,
		Args: cobra.ExactArgs(1),
	}
	flags.register(cmd.Flags())
	cmd.Flags().BoolVar(&wait, "wait", false, "with --docker: return when Docker is ready")
	cmd.RunE = a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
		p := a.progress()
		sandbox, err := a.create(ctx, c, p, &flags, args[0])
		if err != nil {
			return err
		}
		if ctx.Err() != nil { // interrupted meanwhile: leave nothing
			return a.terminate(c, sandbox.ID, ctx.Err())
		}
		if wait && flags.docker {
			if sandbox.Docker, err = a.awaitDocker(ctx, c, p, sandbox.ID); err != nil {
				return a.terminate(c, sandbox.ID, err)
			}
		}
		return a.showIDs(sandbox, sandbox.ID)
	})
	return cmd
}
