// Command matrix runs the compatibility checks with each version of Docker in
// each place, and writes docs/compatibility.md from the results.
//
//	make compat
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/test/compat/docker"
	"github.com/innerdock/innerdock/test/native"
)

// places are where the checks run: the oracle first.
var places = []string{"native", "full", "minimal"}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "compat:", err)
		os.Exit(1)
	}
}

// matrix is what is asked for.
type matrix struct {
	client  *innerdock.Client
	images  string
	results string
	atOnce  int
	checks  []docker.Check
	kit     docker.Kit
	verbose bool
}

func run(ctx context.Context) error {
	m := &matrix{}
	flag.StringVar(&m.images, "images", "", "the server's --images directory")
	flag.StringVar(&m.results, "results", "", "directory that keeps the results, a file for each version and place")
	flag.IntVar(&m.atOnce, "at-once", 3, "checks at a time")
	flag.BoolVar(&m.verbose, "v", false, "show the output of checks that fail")
	names := flag.String("versions", "", "only these versions of Docker, by commas")
	where := flag.String("places", strings.Join(places, ","), "only these places, by commas; none: only report")
	pattern := flag.String("run", "", "only checks whose area/name matches; of the others, kept results stay")
	report := flag.String("report", "", "write the report of all kept results to this file")
	flag.Parse()
	checks, err := docker.Checks()
	if err != nil {
		return err
	}
	wanted, err := regexp.Compile(*pattern)
	if err != nil {
		return err
	}
	m.checks = slices.DeleteFunc(slices.Clone(checks), func(c docker.Check) bool { return !wanted.MatchString(c.Area + "/" + c.Name) })
	if *where != "none" {
		if err := m.all(ctx, *names, strings.Split(*where, ",")); err != nil {
			return err
		}
	}
	if *report == "" {
		return nil
	}
	return writeReport(*report, m.results, checks)
}

// all runs the matrix. A place that could not be made is an error, a check that
// failed is in the results.
func (m *matrix) all(ctx context.Context, names string, where []string) error {
	var err error
	if m.client, err = innerdock.New(os.Getenv("INNERDOCK_HOST"), os.Getenv("INNERDOCK_API_KEY")); err != nil {
		return err
	}
	defer m.client.Close()
	if m.kit, err = docker.NewKit(ctx, filepath.Join(m.images, "seed")); err != nil {
		return err
	}
	var failures error
	for _, v := range versions {
		if names != "" && !slices.Contains(strings.Split(names, ","), v.name) {
			continue
		}
		image, err := v.image(ctx, m.client)
		if err != nil {
			failures = errors.Join(failures, fmt.Errorf("version %s: %w", v.name, err))
			continue
		}
		for _, place := range where {
			if err := m.one(ctx, v, image, place); err != nil {
				failures = errors.Join(failures, fmt.Errorf("version %s, %s: %w", v.name, place, err))
			}
			if err := context.Cause(ctx); err != nil {
				return err
			}
		}
	}
	return failures
}

// kept is the content of a file of results.
type kept struct {
	Facts   docker.Facts    `json:"facts"`
	Results []docker.Result `json:"results"`
}

// one runs the checks of one version in one place.
func (m *matrix) one(ctx context.Context, v version, image innerdock.Image, name string) (err error) {
	place, done, err := m.open(ctx, image, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	facts, err := docker.Prepare(ctx, place, m.kit)
	if err != nil {
		return err
	}
	began := time.Now()
	counts := map[docker.Outcome]int{}
	known := func(c docker.Check) bool { return c.Expected(name, v.name) != "" }
	results, err := docker.Run(ctx, place, facts, m.checks, m.atOnce, known, func(c docker.Check, r docker.Result) {
		counts[r.Outcome]++
		fmt.Fprintf(os.Stderr, "%-7s %s/%s %.1f s\n", r.Outcome, c.Area, c.Name, r.Seconds)
		if m.verbose && (r.Outcome == docker.Failed || r.Again) {
			fmt.Fprintln(os.Stderr, "    "+strings.ReplaceAll(strings.TrimSpace(r.Output), "\n", "\n    "))
		}
	})
	fmt.Fprintf(os.Stderr, "Docker %s (%s), %s: %v in %.0f s\n", v.name, facts.Version, name, counts, time.Since(began).Seconds())
	if err != nil || m.results == "" {
		return err
	}
	return keep(m.results, v.name, name, kept{facts, results})
}

// keep writes results, and leaves what is kept of other checks.
func keep(dir, version, place string, now kept) error {
	before, err := recall(dir, version, place)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, r := range before.Results {
		if !slices.ContainsFunc(now.Results, func(n docker.Result) bool { return n.Name == r.Name }) {
			now.Results = append(now.Results, r)
		}
	}
	content, err := json.MarshalIndent(now, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(file(dir, version, place), content, 0o644)
}

// recall reads what is kept.
func recall(dir, version, place string) (kept, error) {
	var k kept
	content, err := os.ReadFile(file(dir, version, place))
	if err != nil {
		return k, err
	}
	return k, json.Unmarshal(content, &k)
}

func file(dir, version, place string) string {
	return filepath.Join(dir, version+"-"+place+".json")
}

// open makes a place, and returns how it ends.
func (m *matrix) open(ctx context.Context, image innerdock.Image, name string) (docker.Place, func() error, error) {
	if name == "native" {
		n, err := docker.NewNative(ctx, native.Root(m.images, image.ID), m.kit)
		if err != nil {
			return nil, nil, err
		}
		return n, n.Close, nil
	}
	s, err := docker.NewSandbox(ctx, m.client, image.ID, innerdock.DockerProfile(name))
	if err != nil {
		return nil, nil, err
	}
	return s, func() error { return s.Close(ctx) }, nil
}
