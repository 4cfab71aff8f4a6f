// Command make prints the ID of an image with a Docker that tools/docker builds,
// made in the server of INNERDOCK_HOST:
//
//	go run ./test/compat/dockerimage/make "$(tools/docker/build.sh 29)" [DAEMON.JSON]
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/test/compat/dockerimage"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "make:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) < 1 || len(args) > 2 {
		return errors.New("usage: make BIN-DIRECTORY [DAEMON.JSON, as text]")
	}
	client, err := innerdock.New(os.Getenv("INNERDOCK_HOST"), os.Getenv("INNERDOCK_API_KEY"))
	if err != nil {
		return err
	}
	defer client.Close()
	image, err := dockerimage.Build(ctx, client, args[0], append(args, "")[1], func(line string) { fmt.Fprintln(os.Stderr, line) })
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(os.Stdout, image.ID)
	return err
}
