// Command innerdock-agent is PID 1 of every sandbox. It is embedded into the
// server and is of no use by itself; see package agent. By another name it is what
// dockerd starts for a published port; see package portproxy.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/innerdock/innerdock/pkg/agent"
	"github.com/innerdock/innerdock/pkg/agent/docker/portproxy"
	"github.com/innerdock/innerdock/pkg/agent/wire"
)

// version is set by the build.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if os.Args[0] == portproxy.Path {
		if err := portproxy.Main(ctx, os.Args[1:], os.Environ()); err != nil {
			os.Exit(1) // dockerd was told why
		}
		return
	}
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "innerdock-agent:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("innerdock-agent", flag.ContinueOnError)
	socket := flags.String("socket", filepath.Join(wire.ControlDir, wire.SocketName), "the server's socket")
	root := flags.String("root", "", "directory that holds workspace and etc; not for PID 1")
	verbose := flags.Bool("v", false, "log what is of no interest")
	if err := flags.Parse(args); err != nil {
		return err
	}
	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	return agent.New(agent.Config{
		Socket: *socket, Root: *root, Init: os.Getpid() == 1, Version: version, Log: log,
	}).Run(ctx)
}
