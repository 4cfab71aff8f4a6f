// Command filters fills a copy of gVisor's source with the seccomp filters that
// runsc would otherwise compile at the start of every sandbox.
//
// gVisor's own Bazel build embeds them; its Go module leaves the table empty.
// The filters come from the very rules that runsc itself would compile, so
// the result is the same program, only earlier. An option without a filter here
// is compiled when the sandbox starts, as before.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"
	sentry "gvisor.dev/gvisor/runsc/boot/filter/config"
	gofer "gvisor.dev/gvisor/runsc/fsgofer/filter/config"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: filters GVISOR_SOURCE_DIR")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "filters:", err)
		os.Exit(1)
	}
}

// run fills the tables of both filter packages in place.
func run(source string) error {
	for _, set := range []struct {
		dir      string
		programs func() ([]precompiledseccomp.Program, error)
	}{
		{"runsc/boot/filter", sentry.PrecompiledPrograms},
		{"runsc/fsgofer/filter", gofer.PrecompiledPrograms},
	} {
		programs, err := set.programs()
		if err != nil {
			return err
		}
		table := filepath.Join(source, set.dir, "filter_precompiled.go")
		text, err := fill(table, programs)
		if err != nil {
			return err
		}
		if err := os.WriteFile(table, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// fill returns the source of an empty table with the programs that innerdock
// can use: the sandbox's own network stack and no device of the host.
func fill(path string, programs []precompiledseccomp.Program) (string, error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	const place = "programs := make(map[string]precompiledseccomp.Program)\n"
	before, after, found := strings.Cut(string(source), place)
	if !found {
		return "", errors.New(path + " no longer has the table of filters; adapt tools/runsc/filters to this version of gVisor")
	}
	slices.SortFunc(programs, func(a, b precompiledseccomp.Program) int { return strings.Compare(a.Name, b.Name) })
	var table strings.Builder
	kept := 0
	for _, p := range programs {
		if unused(p.Name) {
			continue
		}
		kept++
		fmt.Fprintf(&table, "\tprograms[%q] = %s\n", p.Name, p.Expr("\t", "precompiledseccomp"))
	}
	if kept == 0 {
		return "", errors.New(path + ": no filter is left; adapt tools/runsc/filters to this version of gVisor")
	}
	fmt.Fprintf(os.Stderr, "filters: %d of %d for %s\n", kept, len(programs), filepath.Base(filepath.Dir(path)))
	return before + place + table.String() + after, nil
}

func unused(key string) bool {
	for _, option := range []string{"HostNetwork", "HostNetworkRawSockets", "NVProxy", "TPUProxy", "RDMAProxy", "ProfileEnable"} {
		if strings.Contains(key, option+"=true") {
			return true
		}
	}
	return false
}
