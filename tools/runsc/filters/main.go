// Command filters fills a copy of gVisor's source with the seccomp filters that
// runsc would otherwise compile at the start of every sandbox.
//
// gVisor's own Bazel build embeds them; its Go module leaves the table empty.
// The filters come from the very rules that runsc itself would compile, so
// the result is the same program, only earlier. An option without a filter here
// is compiled when the sandbox starts, as before.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"
	gofer "gvisor.dev/gvisor/runsc/fsgofer/filter/config"
)

// sets are the packages of gVisor that have a table of filters.
var sets = []struct {
	dir      string
	programs func() ([]precompiledseccomp.Program, error)
}{
	{"runsc/boot/filter", sentryPrograms},
	{"runsc/fsgofer/filter", gofer.PrecompiledPrograms},
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: filters GVISOR_SOURCE_DIR | --print")
		os.Exit(2)
	}
	var err error
	if os.Args[1] == "--print" {
		err = printPrograms()
	} else {
		err = run(os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "filters:", err)
		os.Exit(1)
	}
}

// printPrograms writes the programs of all sets as JSON, for an instance of this
// command with another process ID.
func printPrograms() error {
	all, err := compile()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(all)
}

// run fills the tables of all sets in place.
func run(source string) error {
	all, err := compile()
	if err != nil {
		return err
	}
	if err := markPIDs(all); err != nil {
		return err
	}
	for i, set := range sets {
		table := filepath.Join(source, set.dir, "filter_precompiled.go")
		text, err := fill(table, all[i])
		if err != nil {
			return err
		}
		if err := os.WriteFile(table, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// compile returns the programs of each set, sorted by name.
func compile() ([][]precompiledseccomp.Program, error) {
	var all [][]precompiledseccomp.Program
	for _, set := range sets {
		programs, err := set.programs()
		if err != nil {
			return nil, err
		}
		slices.SortFunc(programs, func(a, b precompiledseccomp.Program) int { return strings.Compare(a.Name, b.Name) })
		all = append(all, programs)
	}
	return all, nil
}

// pidVariable is the name that the filters give to the lower half of their
// process's ID, which is filled in when a filter is installed.
const pidVariable = "self_pid_low32bits"

// markPIDs finds the places where a rule of gVisor has put the ID of the process
// that compiled it (systrap's does, for the signal by which a sandbox kills
// itself) and makes them places of the variable. A second process compiles the
// same programs; nothing but its ID may be different in them.
func markPIDs(all [][]precompiledseccomp.Program) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "--print")
	cmd.Stderr = os.Stderr
	text, err := cmd.Output()
	if err != nil {
		return err
	}
	var others [][]precompiledseccomp.Program
	if err := json.Unmarshal(text, &others); err != nil {
		return err
	}
	for i, set := range sets {
		for j, p := range all[i] {
			if err := markPID(p, others[i][j], uint32(os.Getpid()), uint32(cmd.Process.Pid)); err != nil {
				return fmt.Errorf("%s, %s: %w", set.dir, p.Name, err)
			}
		}
	}
	return nil
}

func markPID(p, other precompiledseccomp.Program, pid, otherPID uint32) error {
	if p.Name != other.Name || len(p.Bytecode32) != len(other.Bytecode32) {
		return errors.New("two compilations give different programs")
	}
	for i, word := range p.Bytecode32 {
		if word == other.Bytecode32[i] {
			continue
		}
		if _, known := p.VarOffsets[pidVariable]; !known || word != pid || other.Bytecode32[i] != otherPID {
			return fmt.Errorf("two compilations differ at word %d, and not by the process's ID", i)
		}
		p.VarOffsets[pidVariable] = append(p.VarOffsets[pidVariable], i)
		p.Bytecode32[i] = 0
	}
	return nil
}

// fill returns the source of an empty table with the programs in it.
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
	var table strings.Builder
	for _, p := range programs {
		fmt.Fprintf(&table, "\tprograms[%q] = %s\n", p.Name, p.Expr("\t", "precompiledseccomp"))
	}
	return before + place + table.String() + after, nil
}
