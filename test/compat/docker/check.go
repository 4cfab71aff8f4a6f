// Package docker holds what people do with Docker as checks: short shell scripts
// that run unchanged against Docker on a machine's own kernel and in a sandbox.
// What passes on the first counts, and must pass in the second, or be listed
// beside the check with the reason.
//
// The checks are in checks/*.sh, one file for each area. A check begins with
//
//	#@ name: what is true if it passes
//
// and may go on with lines of
//
//	#@ needs compose | buildx | docker >= 23
//	#@ alone                    (it sees what other checks do, or disturbs them)
//	#@ seconds 90               (its time limit; 60 else)
//	#@ differs full: reason     (it fails in this profile, and why; also full@20.10)
//
// A reason that many checks share is a word of reasons.txt. The rest is the
// body, run by bash with checks/lib.sh before it.
package docker

import (
	"bufio"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
)

//go:embed checks/*.sh checks/lib.bash checks/reasons.txt
var files embed.FS

// Check is one thing that users do.
type Check struct {
	Area, Name, Title string

	// Body is the script.
	Body string

	// Needs are what it cannot be without: compose, buildx, docker >= VERSION.
	Needs []string

	// Alone is whether no other check may run at the same time.
	Alone bool

	// Limit is its time.
	Limit time.Duration

	// Differs are the reasons why it fails, by profile or profile@version.
	Differs map[string]string

	// Number is its own among all checks, for names and ports.
	Number int
}

var (
	heading = regexp.MustCompile(`^#@ ([a-z0-9-]+): (\S.*)$`)
	differs = regexp.MustCompile(`^#@ differs ((?:full|minimal)(?:@[0-9.]+(?:-[a-z]+)?)?): (\S.*)$`)
)

const defaultLimit = 60 * time.Second

// Checks are all of them, by area and in the files' order.
func Checks() ([]Check, error) {
	reasons, err := sharedReasons()
	if err != nil {
		return nil, err
	}
	names, err := fs.Glob(files, "checks/*.sh")
	if err != nil {
		return nil, err
	}
	var all []Check
	known := map[string]bool{}
	for _, name := range names {
		content, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		checks, err := parse(strings.TrimSuffix(path.Base(name), ".sh"), string(content), reasons)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, c := range checks {
			if known[c.Name] {
				return nil, fmt.Errorf("%s: there are two checks %s", name, c.Name)
			}
			known[c.Name] = true
			c.Number = len(all) + 1
			all = append(all, c)
		}
	}
	return all, nil
}

func parse(area, content string, reasons map[string]string) ([]Check, error) {
	var checks []Check
	body := &strings.Builder{}
	flush := func() {
		if len(checks) > 0 {
			checks[len(checks)-1].Body = body.String()
		}
		body = &strings.Builder{}
	}
	lines := bufio.NewScanner(strings.NewReader(content))
	for lines.Scan() {
		line := lines.Text()
		rest, mark := strings.CutPrefix(line, "#@ ")
		if !mark {
			body.WriteString(line + "\n")
			continue
		}
		if m := differs.FindStringSubmatch(line); m != nil && len(checks) > 0 {
			reason := m[2]
			if shared, ok := reasons[reason]; ok {
				reason = shared
			}
			checks[len(checks)-1].Differs[m[1]] = reason
			continue
		}
		if m := heading.FindStringSubmatch(line); m != nil {
			flush()
			checks = append(checks, Check{Area: area, Name: m[1], Title: m[2], Limit: defaultLimit, Differs: map[string]string{}})
			continue
		}
		if len(checks) == 0 {
			return nil, fmt.Errorf("%q stands before the first check", line)
		}
		if err := checks[len(checks)-1].option(rest); err != nil {
			return nil, err
		}
	}
	flush()
	return checks, lines.Err()
}

func (c *Check) option(text string) error {
	word, rest, _ := strings.Cut(text, " ")
	switch word {
	case "needs":
		c.Needs = append(c.Needs, rest)
		return nil
	case "alone":
		c.Alone = true
		return nil
	case "seconds":
		seconds, err := strconv.Atoi(rest)
		c.Limit = time.Duration(seconds) * time.Second
		return err
	}
	return fmt.Errorf("%s: %q is no option of a check", c.Name, text)
}

func sharedReasons() (map[string]string, error) {
	content, err := files.ReadFile("checks/reasons.txt")
	if err != nil {
		return nil, err
	}
	reasons := map[string]string{}
	for line := range strings.Lines(string(content)) {
		word, text, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok {
			return nil, fmt.Errorf("checks/reasons.txt: %q is not word: reason", line)
		}
		reasons[word] = text
	}
	return reasons, nil
}

// Expected is why the check fails in a profile with a version of Docker, by the
// name that the matrix has for it; "" if it passes.
func (c Check) Expected(profile, version string) string {
	if reason, ok := c.Differs[profile+"@"+version]; ok {
		return reason
	}
	return c.Differs[profile]
}

// Unexpected says what is wrong with a result in a profile; "" if nothing is. A
// difference that is gone is wrong in full, where the list must be true; minimal
// is only held to what it can.
func (c Check) Unexpected(profile, version string, r Result) string {
	reason := c.Expected(profile, version)
	switch {
	case r.Outcome == Failed && reason == "":
		return "failed:\n" + r.Output
	case r.Outcome == Passed && reason != "" && profile == "full":
		return "passed, though it is listed as different (" + reason + "); remove that line"
	}
	return ""
}

// release is the part of a version before its second dot: 26.1 of 26.1.5.
func release(version string) string {
	parts := strings.SplitN(version, ".", 3)
	return strings.Join(parts[:min(2, len(parts))], ".")
}
