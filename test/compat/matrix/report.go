package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/innerdock/innerdock/test/compat/docker"
)

// column is a version in a place.
type column struct {
	version version
	place   string
	facts   docker.Facts
	results map[string]docker.Result
	native  map[string]docker.Result // of the same version; nil if there are none
}

// counts reports whether a check says something here: it applies, and passes
// natively.
func (c column) counts(name string) bool {
	r, ok := c.results[name]
	return ok && r.Outcome != docker.NotApplicable && (c.native == nil || c.native[name].Outcome == docker.Passed)
}

// writeReport writes the report of the kept results. What the checks do not
// expect is an error, once the report is written.
func writeReport(path, dir string, checks []docker.Check) error {
	columns, err := readColumns(dir)
	if err != nil {
		return err
	}
	var text strings.Builder
	text.WriteString(preface(checks))
	writeTotals(&text, columns, checks)
	writeAreas(&text, columns, checks)
	writeDifferences(&text, columns, checks)
	writeInvalid(&text, columns, checks)
	writeAgain(&text, columns, checks)
	writeChecks(&text, checks)
	if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
		return err
	}
	return unexpected(columns, checks)
}

func readColumns(dir string) ([]column, error) {
	var columns []column
	for _, v := range versions {
		var native map[string]docker.Result
		for _, place := range places {
			k, err := recall(dir, v.name, place)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			c := column{version: v, place: place, facts: k.Facts, results: map[string]docker.Result{}, native: native}
			for _, r := range k.Results {
				c.results[r.Name] = r
			}
			if place == "native" {
				native = c.results
			}
			columns = append(columns, c)
		}
	}
	return columns, nil
}

func preface(checks []docker.Check) string {
	return fmt.Sprintf(`# Compatibility with Docker

%d checks of what people do with Docker run unchanged against dockerd on this
machine's own kernel (native), and in a sandbox with profile full and with
profile minimal, for several versions of Docker. A check counts where it passes
natively. This file is written by `+"`make compat`"+`; the checks, and the reasons
below, are in [test/compat/docker/checks](../test/compat/docker/checks).

`, len(checks))
}

func writeTotals(w *strings.Builder, columns []column, checks []docker.Check) {
	w.WriteString("## Totals\n\n| Docker | native | full | minimal | not applicable |\n|---|---|---|---|---|\n")
	for _, v := range versions {
		cells := map[string]string{}
		var facts docker.Facts
		na := 0
		for _, c := range columns {
			if c.version.name != v.name {
				continue
			}
			passed, counted := 0, 0
			facts, na = c.facts, 0
			for _, check := range checks {
				r, ok := c.results[check.Name]
				switch {
				case ok && r.Outcome == docker.NotApplicable:
					na++
				case c.counts(check.Name):
					counted++
					if r.Outcome == docker.Passed {
						passed++
					}
				}
			}
			cells[c.place] = fmt.Sprintf("%d of %d", passed, counted)
		}
		if len(cells) > 0 {
			fmt.Fprintf(w, "| %s (%s): %s | %s | %s | %s | %d |\n", v.name, facts.Version, v.what,
				cell(cells, "native"), cell(cells, "full"), cell(cells, "minimal"), na)
		}
	}
	w.WriteString("\n")
}

func cell(cells map[string]string, place string) string {
	if text, ok := cells[place]; ok {
		return text
	}
	return "not run"
}

func writeAreas(w *strings.Builder, columns []column, checks []docker.Check) {
	w.WriteString("## By area\n\n| area |")
	rule := "|---|"
	columns = slices.DeleteFunc(slices.Clone(columns), func(c column) bool { return c.place == "native" })
	for _, c := range columns {
		fmt.Fprintf(w, " %s %s |", c.version.name, c.place)
		rule += "---|"
	}
	w.WriteString("\n" + rule + "\n")
	for _, area := range areas(checks) {
		fmt.Fprintf(w, "| %s |", area)
		for _, c := range columns {
			passed, counted := 0, 0
			for _, check := range checks {
				if check.Area == area && c.counts(check.Name) {
					counted++
					if c.results[check.Name].Outcome == docker.Passed {
						passed++
					}
				}
			}
			if counted == 0 {
				w.WriteString(" n/a |")
			} else {
				fmt.Fprintf(w, " %d/%d |", passed, counted)
			}
		}
		w.WriteString("\n")
	}
	w.WriteString("\n")
}

func areas(checks []docker.Check) []string {
	var all []string
	for _, c := range checks {
		if !slices.Contains(all, c.Area) {
			all = append(all, c.Area)
		}
	}
	return all
}

// writeDifferences lists what fails in a sandbox and passes natively.
func writeDifferences(w *strings.Builder, columns []column, checks []docker.Check) {
	for _, place := range places[1:] {
		fmt.Fprintf(w, "## What differs from native in profile %s\n\n| check | with Docker | reason |\n|---|---|---|\n", place)
		for _, check := range checks {
			byReason := map[string][]string{}
			var reasons []string
			for _, c := range columns {
				if c.place != place || !c.counts(check.Name) || c.results[check.Name].Outcome != docker.Failed {
					continue
				}
				reason := check.Expected(place, c.version.name)
				if reason == "" {
					reason = "not known yet"
				}
				if byReason[reason] == nil {
					reasons = append(reasons, reason)
				}
				byReason[reason] = append(byReason[reason], c.version.name)
			}
			for _, reason := range reasons {
				fmt.Fprintf(w, "| %s: %s | %s | %s |\n", check.Name, check.Title, strings.Join(byReason[reason], ", "), reason)
			}
		}
		w.WriteString("\n")
	}
}

// writeInvalid lists what fails natively, and says nothing about sandboxes.
func writeInvalid(w *strings.Builder, columns []column, checks []docker.Check) {
	var lines strings.Builder
	for _, check := range checks {
		var in []string
		for _, c := range columns {
			if c.place == "native" && c.results[check.Name].Outcome == docker.Failed {
				in = append(in, c.version.name)
			}
		}
		if len(in) > 0 {
			fmt.Fprintf(&lines, "- %s: %s (%s)\n", check.Name, check.Title, strings.Join(in, ", "))
		}
	}
	if lines.Len() > 0 {
		w.WriteString("## What fails natively\n\nThese are left out above for the versions in brackets.\n\n" + lines.String() + "\n")
	}
}

// writeAgain lists what a busy machine made fail at first.
func writeAgain(w *strings.Builder, columns []column, checks []docker.Check) {
	var lines strings.Builder
	for _, check := range checks {
		var in []string
		for _, c := range columns {
			if c.results[check.Name].Again {
				in = append(in, c.version.name+" "+c.place)
			}
		}
		if len(in) > 0 {
			fmt.Fprintf(&lines, "- %s (%s)\n", check.Name, strings.Join(in, ", "))
		}
	}
	if lines.Len() > 0 {
		w.WriteString("## What passed only when it was run again, alone\n\n" + lines.String() + "\n")
	}
}

func writeChecks(w *strings.Builder, checks []docker.Check) {
	w.WriteString("## The checks\n")
	for _, area := range areas(checks) {
		fmt.Fprintf(w, "\n### %s\n\n", area)
		for _, c := range checks {
			if c.Area == area {
				fmt.Fprintf(w, "- %s: %s\n", c.Name, c.Title)
			}
		}
	}
}

// unexpected is what the results say that the checks do not.
func unexpected(columns []column, checks []docker.Check) error {
	var failures error
	for _, c := range columns {
		if c.place == "native" {
			continue
		}
		for _, check := range checks {
			if !c.counts(check.Name) {
				continue
			}
			if what := check.Unexpected(c.place, c.version.name, c.results[check.Name]); what != "" {
				failures = errors.Join(failures, fmt.Errorf("version %s, %s: %s/%s %s", c.version.name, c.place, check.Area, check.Name, strings.TrimSpace(what)))
			}
		}
	}
	return failures
}
