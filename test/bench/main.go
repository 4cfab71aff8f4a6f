// Command bench measures what users wait for, against a server that runs
// (INNERDOCK_HOST), against Docker of the same image on this machine's own
// kernel, and against profile minimal, in one run, and prints tables. It is not
// a test: figures of a noisy machine gate nothing.
//
//	make bench
//	scripts/bench -only run,network
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/test/native"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	figures
	client *innerdock.Client
	image  innerdock.Image // with Docker
	plain  innerdock.Image
	images string // the server's, where Docker's root for the native one is
	shell  []byte // the files of busybox
	data   string // the server's
	rounds int
	starts int

	runscPath string
	template  string // the server's, of sandboxes with Docker
	scratch   string // of what runs without the server
	serial    int    // of the sandboxes in it

	dense int // sandboxes at once, for part density

	largest int // megabytes that the sandboxes of part large hold

	binary string // innerdock, for part inside
	sizes  string // in megabytes, of the images for it
}

// parts are what -only chooses from, in the order in which they run.
var parts = []struct {
	name    string
	measure func(*bench, context.Context) error
}{
	{"warm", (*bench).warm},
	{"once", (*bench).tenAtOnce},
	{"pool", (*bench).fromPool},
	{"large", (*bench).large},
	{"pause", (*bench).pauses},
	{"fork", (*bench).forks},
	{"start", (*bench).start},
	{"exec", (*bench).commands},
	{"run", (*bench).containers},
	{"restart", (*bench).restarts},
	{"load", (*bench).loads},
	{"build", (*bench).builds},
	{"network", (*bench).network},
	{"tunnel", (*bench).tunnel},
	{"lines", (*bench).lines},
	{"image", (*bench).pulls},
	{"density", (*bench).density},
	{"inside", (*bench).inside},
}

func run(ctx context.Context) error {
	b := &bench{}
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	flag.StringVar(&b.binary, "innerdock", "bin/innerdock", "the innerdock to start, for part inside")
	flag.StringVar(&b.sizes, "sizes", "100,1000,5000", "megabytes of the Docker images, for part inside; the last takes five times as much of the disk while it is built")
	flag.IntVar(&b.largest, "hold", 1000, "megabytes that the checkpoints of part large hold")
	only := flag.String("only", "", "parts to measure, of "+strings.Join(names, ",")+"; all if empty")
	flag.StringVar(&b.images, "images", "", "the server's --images directory; with it, Docker is measured on the host's kernel too")
	flag.StringVar(&b.data, "data", "", "the server's --data directory, for parts warm, once, large and fork")
	flag.StringVar(&b.runscPath, "runsc", os.Getenv("INNERDOCK_RUNSC"), "the runsc of the server, for parts warm, once, large and fork")
	flag.IntVar(&b.starts, "starts", 10, "sandboxes to create")
	flag.IntVar(&b.dense, "dense", 100, "sandboxes with Docker that run at once, for part density")
	flag.IntVar(&b.rounds, "rounds", 10, "times that a container is run, inside and natively by turns; longer things are done less often")
	flag.Parse()
	chosen := strings.Split(cmp.Or(*only, strings.Join(names, ",")), ",")
	for _, name := range chosen {
		if !slices.Contains(names, name) {
			return fmt.Errorf("-only %s: the parts are %s", name, strings.Join(names, ", "))
		}
	}
	var err error
	if b.client, err = innerdock.New(os.Getenv("INNERDOCK_HOST"), os.Getenv("INNERDOCK_API_KEY")); err != nil {
		return err
	}
	defer b.client.Close()
	if err := b.buildImages(ctx); err != nil {
		return err
	}
	for _, p := range parts {
		if !slices.Contains(chosen, p.name) {
			continue
		}
		fmt.Fprintln(os.Stderr, "measuring:", p.name)
		if err := p.measure(b, ctx); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", p.name, err), b.print(os.Stdout))
		}
	}
	return b.print(os.Stdout)
}

func (b *bench) buildImages(ctx context.Context) error {
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

// with calls measure with a sandbox of profile full, and with Docker on the
// host's kernel where that can be had. They end afterwards.
func (b *bench) with(ctx context.Context, measure func(places []*place) error) error {
	return b.withNative(ctx, func(places []*place, _ *native.Docker) error { return measure(places) })
}

// withNative is with for who wants more of the native Docker, which may be nil.
func (b *bench) withNative(ctx context.Context, measure func(places []*place, host *native.Docker) error) (err error) {
	inside, err := b.sandbox(ctx, innerdock.ProfileFull)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inside.end(ctx)) }()
	if b.images == "" {
		return measure([]*place{inside}, nil)
	}
	docker, err := native.Start(ctx, native.Root(b.images, b.image.ID))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, docker.Stop()) }()
	return measure([]*place{inside, onHost(docker)}, docker)
}
