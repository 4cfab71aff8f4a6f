// Command bench measures what users wait for, against a server that runs
// (INNERDOCK_HOST) and against Docker of the same image on this machine's own
// kernel, in one run, and prints a table. It is not a test: figures of a noisy
// machine gate nothing.
//
//	make bench
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/innerdock/innerdock"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run: a client and the samples of each figure.
type bench struct {
	client *innerdock.Client
	image  innerdock.Image
	plain  innerdock.Image
	names  []string
	taken  map[string][]float64
}

func run(ctx context.Context) error {
	images := flag.String("images", "", "the server's --images directory; with it, Docker is measured on the host's kernel too")
	creates := flag.Int("creates", 10, "sandboxes to create")
	execs := flag.Int("execs", 100, "commands to execute")
	runs := flag.Int("runs", 10, "containers to run, inside and natively by turns")
	flag.Parse()
	client, err := innerdock.New(os.Getenv("INNERDOCK_HOST"), os.Getenv("INNERDOCK_API_KEY"))
	if err != nil {
		return err
	}
	defer client.Close()
	b := &bench{client: client, taken: map[string][]float64{}}
	if err := b.build(ctx); err != nil {
		return err
	}
	if err := b.createPlain(ctx, *creates); err != nil {
		return err
	}
	if err := b.createDocker(ctx, *creates); err != nil {
		return err
	}
	if err := b.inside(ctx, *execs, *runs, *images); err != nil {
		return err
	}
	b.print(os.Stdout)
	return nil
}

func (b *bench) build(ctx context.Context) error {
	def := innerdock.ImageDefinition{PythonVersion: "python3.11"}
	say := func(_ string, e innerdock.BuildEvent) { fmt.Fprintln(os.Stderr, e.Step, e.Message) }
	var err error
	if b.plain, err = b.client.BuildImage(ctx, def, say); err != nil {
		return err
	}
	def.Steps = []innerdock.ImageStep{{Docker: &innerdock.DockerInstall{}}}
	b.image, err = b.client.BuildImage(ctx, def, say)
	return err
}

// take notes a sample in seconds.
func (b *bench) take(name string, seconds float64) {
	if _, known := b.taken[name]; !known {
		b.names = append(b.names, name)
	}
	b.taken[name] = append(b.taken[name], seconds)
}

// createPlain measures a sandbox without Docker, from the request to the first command's end.
func (b *bench) createPlain(ctx context.Context, n int) error {
	for range n {
		began := time.Now()
		sandbox, err := b.client.CreateSandbox(ctx, innerdock.SandboxSpec{Image: b.plain.ID})
		if err != nil {
			return err
		}
		b.take("create", time.Since(began).Seconds())
		_, err = b.exec(ctx, sandbox.ID, "true")
		b.take("create → first exec", time.Since(began).Seconds())
		for _, phase := range []string{"network", "runtime", "agent"} {
			b.take("  of create: "+phase, sandbox.Timings[phase])
		}
		began = time.Now()
		_, failure := b.client.Terminate(ctx, sandbox.ID)
		b.take("terminate", time.Since(began).Seconds())
		if err := errors.Join(err, failure); err != nil {
			return err
		}
	}
	return nil
}

// createDocker measures a sandbox with Docker, from the request until Docker answers.
func (b *bench) createDocker(ctx context.Context, n int) error {
	for range n {
		began := time.Now()
		sandbox, err := b.withDocker(ctx)
		if err != nil {
			return err
		}
		b.take("create → Docker ready", time.Since(began).Seconds())
		began = time.Now()
		_, err = b.client.Terminate(ctx, sandbox.ID)
		b.take("terminate, with Docker", time.Since(began).Seconds())
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) withDocker(ctx context.Context) (innerdock.Sandbox, error) {
	sandbox, err := b.client.CreateSandbox(ctx, innerdock.SandboxSpec{
		Image: b.image.ID, CPU: 2, Memory: "4Gi", Docker: innerdock.DockerSpec{Enabled: true},
	})
	if err != nil {
		return sandbox, err
	}
	_, err = b.client.WaitDocker(ctx, sandbox.ID)
	return sandbox, err
}

// inside measures commands in one sandbox, and containers by turns there and in
// a Docker of the same image on the host's kernel.
func (b *bench) inside(ctx context.Context, execs, runs int, images string) (err error) {
	sandbox, err := b.withDocker(ctx)
	if err != nil {
		return err
	}
	defer func() {
		_, failure := b.client.Terminate(context.WithoutCancel(ctx), sandbox.ID)
		err = errors.Join(err, failure)
	}()
	for range execs {
		began := time.Now()
		if _, err := b.exec(ctx, sandbox.ID, "true"); err != nil {
			return err
		}
		b.take("exec round trip", time.Since(began).Seconds())
	}
	if err := b.roundTrips(ctx, sandbox.ID, execs); err != nil {
		return err
	}
	hello, err := b.exec(ctx, sandbox.ID, "sh", "-c", "docker pull -q hello-world >&2 && docker save hello-world")
	if err != nil {
		return err
	}
	native, err := startNative(ctx, images, b.image.ID, hello)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, native.stop()) }()
	for range runs {
		for _, network := range []string{"bridge", "host"} {
			args := []string{"docker", "run", "--rm", "--network", network, "hello-world"}
			began := time.Now()
			if _, err := b.exec(ctx, sandbox.ID, args...); err != nil {
				return err
			}
			b.take("docker run hello-world, "+network+", inside", time.Since(began).Seconds())
			if native == nil {
				continue
			}
			began = time.Now()
			if err := native.exec(ctx, nil, args...); err != nil {
				return err
			}
			b.take("docker run hello-world, "+network+", native", time.Since(began).Seconds())
		}
	}
	return nil
}

// roundTrips measures the API and the agent without a new process.
func (b *bench) roundTrips(ctx context.Context, id string, n int) error {
	for range n {
		began := time.Now()
		if _, err := b.client.Processes(ctx, id); err != nil {
			return err
		}
		b.take("request to the agent", time.Since(began).Seconds())
	}
	return nil
}

// exec runs a command that must succeed and returns its output.
func (b *bench) exec(ctx context.Context, id string, args ...string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	process, err := b.client.Exec(ctx, id, innerdock.ProcessSpec{Args: args}, innerdock.Streams{Stdout: &stdout, Stderr: &stderr})
	if err == nil && *process.ExitCode != 0 {
		err = fmt.Errorf("%q ended with %d: %s", args, *process.ExitCode, stderr.String())
	}
	return stdout.Bytes(), err
}

func (b *bench) print(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "figure\tn\tmedian ms\tp95 ms\tmin ms")
	for _, name := range b.names {
		samples := slices.Sorted(slices.Values(b.taken[name]))
		fmt.Fprintf(table, "%s\t%d\t%.1f\t%.1f\t%.1f\n", name, len(samples),
			quantile(samples, 0.5)*1000, quantile(samples, 0.95)*1000, samples[0]*1000)
	}
	_ = table.Flush()
	for _, network := range []string{"bridge", "host"} {
		inside := b.taken["docker run hello-world, "+network+", inside"]
		native := b.taken["docker run hello-world, "+network+", native"]
		if len(native) > 0 {
			fmt.Fprintf(w, "docker run on the %s network: %.2f × native\n", network,
				quantile(slices.Sorted(slices.Values(inside)), 0.5)/quantile(slices.Sorted(slices.Values(native)), 0.5))
		}
	}
}

// quantile of sorted samples: the nearest one.
func quantile(sorted []float64, q float64) float64 {
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}
