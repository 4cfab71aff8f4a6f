// Command innerdock is the server and its command line.
package main

import (
	"context"
	"os"

	"github.com/innerdock/innerdock/pkg/cli"
)

func main() {
	os.Exit(cli.Main(context.Background(), os.Args[1:], cli.IO{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
	}))
}
