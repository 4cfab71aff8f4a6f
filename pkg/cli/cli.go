// Package cli is the command line of innerdock, one file per verb. It is the
// composition root: only here are the environment read, signals handled and the
// parts of a server put together.
package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/innerdock/innerdock"
)

// Version is the build's; the linker sets it.
var Version = "dev"

// Exit codes of innerdock's own. Those of a command in a sandbox pass through.
const (
	exitTimeout       = 124 // --timeout ran out
	exitFailure       = 125 // innerdock itself failed
	exitNotExecutable = 126 // the command cannot be run
	exitNotFound      = 127 // there is no such command
	exitSignal        = 128 // plus the number of the signal that ended innerdock
)

// IO is what a command line has of the world.
type IO struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Getenv func(string) string
}

// app is one run of the command line.
type app struct {
	IO
	host   string
	format string
	quiet  bool
	abort  context.Context // done at the second signal: leave at once
}

// exitError ends innerdock with a code, and with a message if it has one.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// Main runs the command line and returns its exit code. The first SIGINT,
// SIGTERM or SIGHUP ends what is being done in good order, the second at once.
func Main(ctx context.Context, args []string, with IO) int {
	ctx, abort, stop := watchSignals(ctx)
	defer stop()
	a := &app{IO: with, abort: abort}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(with.Stdin)
	root.SetOut(with.Stdout)
	root.SetErr(with.Stderr)
	err := root.ExecuteContext(ctx)
	return a.exitCode(ctx, err)
}

// exitCode reports err, unless it is a mere exit code, and chooses the code.
func (a *app) exitCode(ctx context.Context, err error) int {
	if err == nil {
		return 0
	}
	var exit *exitError
	if errors.As(err, &exit) {
		if exit.err != nil {
			a.report(exit.err)
		}
		return exit.code
	}
	if code, over := endOf(ctx); over && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return code
	}
	a.report(err)
	return exitFailure
}

// report writes an error for people, or with -o json as the API has it.
func (a *app) report(err error) {
	var known *innerdock.Error
	if a.format == formatJSON && errors.As(err, &known) {
		_ = json.NewEncoder(a.Stderr).Encode(known)
		return
	}
	_, _ = fmt.Fprintln(a.Stderr, "innerdock:", printable(err.Error()))
}

// printable replaces what could drive a terminal: messages may quote a sandbox.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) {
			return unicode.ReplacementChar
		}
		return r
	}, strings.TrimRight(text, "\n"))
}

const rootLong = `innerdock runs untrusted code in gVisor sandboxes that have a real Docker inside.

Start a server, then create sandboxes from images and run commands in them. The
output of a command is all that goes to standard output; its exit code is
innerdock's. When innerdock itself fails the exit code is 125, a command that
cannot be run gives 126, one that is not there 127, a time-out 124.

Environment:
  INNERDOCK_HOST      the server: unix:///path, http://127.0.0.1:port or https://name:port
                      (default ` + innerdock.DefaultHost + `)
  INNERDOCK_API_KEY   the API key, for http and https`

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "innerdock",
		Short:         "Sandboxes with a real Docker inside",
		Long:          rootLong,
		SilenceErrors: true,
		SilenceUsage:  true,
		Example: `  innerdock run --docker python3.11 -- docker run hello-world
  innerdock create --docker --name build python3.11
  innerdock exec build -- python3 -c 'print(6 * 7)'
  innerdock docker build -- ps -a
  innerdock rm build`,
		PersistentPreRunE: func(*cobra.Command, []string) error { return checkFormat(a.format) },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	flags := root.PersistentFlags()
	flags.StringVarP(&a.host, "host", "H", "", "the server, instead of INNERDOCK_HOST")
	flags.StringVarP(&a.format, "output", "o", "", "table or json")
	flags.BoolVarP(&a.quiet, "quiet", "q", false, "print IDs only, and no progress")
	root.AddCommand(
		a.serverCommand(), a.createCommand(), a.runCommand(), a.execCommand(), a.lsCommand(), a.inspectCommand(),
		a.rmCommand(), a.pauseCommand(), a.resumeCommand(), a.logsCommand(), a.dockerCommand(), a.dockerHostCommand(), a.dockerContextCommand(), a.cpCommand(), a.imageCommand(), a.templateCommand(), a.poolCommand(), a.snapshotCommand(), a.commitCommand(), a.forkCommand(), a.registryCommand(), a.keyCommand(),
		a.doctorCommand(), a.versionCommand(), a.openapiCommand(),
	)
	return root
}

// client is the server's, from the flag or the environment.
func (a *app) client() (*innerdock.Client, error) {
	return innerdock.New(a.server(), a.Getenv("INNERDOCK_API_KEY"))
}

// server is where the server is.
func (a *app) server() string {
	return cmp.Or(a.host, a.Getenv("INNERDOCK_HOST"), innerdock.DefaultHost)
}

// withClient makes a verb of a function that needs the server.
func (a *app) withClient(f func(ctx context.Context, c *innerdock.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		return f(cmd.Context(), c, args)
	}
}

// usage is a mistake on the command line.
func usage(format string, args ...any) error {
	return innerdock.Errorf(innerdock.CodeInvalid, format, args...)
}
