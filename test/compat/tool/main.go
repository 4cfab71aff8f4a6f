// Command tool is what the compatibility checks need besides a shell: servers,
// clients and bad neighbours, in one static program that runs beside Docker and in
// its containers.
package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// commands by name. Servers print "ready" once they listen.
var commands = map[string]struct {
	usage string
	run   func(args []string) error
}{
	"hog":      {"hog MIB: touch so much memory and wait", hog},
	"spin":     {"spin SECONDS: be busy on four threads, and print the seconds of CPU that they got", spin},
	"signals":  {"signals: print the name of each signal, and end at SIGUSR2", signals},
	"http":     {"http ADDRESS TEXT: answer every request with TEXT", serveHTTP},
	"registry": {"registry ADDRESS: an image registry in memory", serveRegistry},
	"udp":      {"udp ADDRESS: echo datagrams", serveUDP},
	"ask":      {"ask NETWORK ADDRESS TEXT: send TEXT (tcp, udp, unix) and print the answer", ask},
	"echo":     {"echo NETWORK ADDRESS: echo streams (tcp, unix)", serveEcho},
	"dns":      {"dns ADDRESS NAME=IP...: answer for these names", serveDNS},
	"watch":    {"watch DIRECTORY NAME: wait until a file of that name is written in DIRECTORY", watch},
	"pty":      {"pty COMMAND...: run it on a terminal, as the lines on standard input say", terminal},
	"sweep":    {"sweep PREFIX: remove every container, network, volume and image named so", sweep},
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "tool:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) > 0 {
		if command, ok := commands[args[0]]; ok {
			return command.run(args[1:])
		}
	}
	var usages []string
	for _, command := range commands {
		usages = append(usages, command.usage)
	}
	slices.Sort(usages)
	return fmt.Errorf("usage:\n%s", strings.Join(usages, "\n"))
}
