// Command list prints what a server's sandboxes have left on this host, one a
// line: `go run ./test/census/list DATA-DIRECTORY`.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/innerdock/innerdock/test/census"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: list DATA-DIRECTORY")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	left, err := census.Take(ctx, os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, line := range left {
		fmt.Println(line)
	}
}
