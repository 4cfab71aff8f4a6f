package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Place is where Docker runs: a sandbox, or this machine's own kernel.
type Place interface {
	// Exec runs a command to its end, with both its outputs in out.
	Exec(ctx context.Context, out io.Writer, args ...string) (exit int, err error)

	// Put writes a file.
	Put(ctx context.Context, path string, mode uint32, content io.Reader) error

	// Outside is the URL of a server that containers reach through the place's own
	// way out.
	Outside() string
}

// Outcome is how a check ended.
type Outcome string

// The outcomes.
const (
	Passed        Outcome = "passed"
	Failed        Outcome = "failed"
	NotApplicable Outcome = "n/a"
)

// Result is one check in one place.
type Result struct {
	Name    string  `json:"name"`
	Outcome Outcome `json:"outcome"`
	Seconds float64 `json:"seconds"`
	Output  string  `json:"output,omitempty"` // of a failed one, the end

	// Again is whether it passed only when it was run again, alone: dockerd waits
	// two seconds for the output of a container that has ended, and on a busy
	// machine output and time limits are lost to what else runs.
	Again bool `json:"again,omitempty"`
}

// Facts are what a place's Docker is.
type Facts struct {
	Version string `json:"version"`
	Compose bool   `json:"compose"`
	Buildx  bool   `json:"buildx"`
}

// offers reports whether the place has what a check needs.
func (f Facts) offers(needs []string) bool {
	for _, need := range needs {
		switch word, rest, _ := strings.Cut(need, " "); {
		case word == "compose" && !f.Compose, word == "buildx" && !f.Buildx:
			return false
		case word == "docker":
			least, _ := strconv.ParseFloat(strings.TrimPrefix(rest, ">= "), 64)
			if have, _ := strconv.ParseFloat(release(f.Version), 64); have < least {
				return false
			}
		}
	}
	return true
}

// outputKept is how much of a failed check's output is kept, from its end.
const outputKept = 8 << 10

// Prepare puts the tool, the library and the images into a place and asks what
// its Docker is.
func Prepare(ctx context.Context, place Place, kit Kit) (Facts, error) {
	lib, err := files.ReadFile("checks/lib.bash")
	if err != nil {
		return Facts{}, err
	}
	for _, file := range []struct {
		path    string
		mode    uint32
		content []byte
	}{
		{"/usr/local/bin/tool", 0o755, kit.Tool}, {"/compat/lib.bash", 0o644, lib}, {"/compat/images.tar", 0o644, kit.Images},
	} {
		if err := place.Put(ctx, file.path, file.mode, bytes.NewReader(file.content)); err != nil {
			return Facts{}, fmt.Errorf("putting %s there: %w", file.path, err)
		}
	}
	const prepare = `set -e
docker load -qi /compat/images.tar >&2
rm /compat/images.tar
has() { if docker $1 version >/dev/null 2>&1; then echo true; else echo false; fi; }
printf '{"version": "%s", "compose": %s, "buildx": %s}' "$(docker version --format '{{.Server.Version}}')" $(has compose) $(has buildx)`
	var out bytes.Buffer
	if exit, err := place.Exec(ctx, &out, "bash", "-c", prepare); err != nil || exit != 0 {
		return Facts{}, fmt.Errorf("preparing the place: exit code %d: %w: %s", exit, err, out.String())
	}
	var facts Facts
	_, last, _ := strings.Cut(out.String(), "{")
	err = json.Unmarshal([]byte("{"+last), &facts)
	return facts, err
}

// Run runs checks, so many at a time, and at the end, one by one, those that want
// to be alone and those that failed and are not known to. It calls tell with each
// result.
func Run(ctx context.Context, place Place, facts Facts, checks []Check, atOnce int, known func(Check) bool, tell func(Check, Result)) ([]Result, error) {
	results := make([]Result, len(checks))
	var mu sync.Mutex
	var failures error
	surprising := func(i int) bool { return results[i].Outcome == Failed && !known(checks[i]) }
	run := func(i int) {
		result, err := one(ctx, place, facts, checks[i])
		mu.Lock()
		defer mu.Unlock()
		results[i] = result
		failures = errors.Join(failures, err)
		if err == nil && !surprising(i) {
			tell(checks[i], result)
		}
	}
	queue := make(chan int)
	var workers sync.WaitGroup
	for range atOnce {
		workers.Go(func() {
			for i := range queue {
				run(i)
			}
		})
	}
	for i, c := range checks {
		if !c.Alone {
			queue <- i
		}
	}
	close(queue)
	workers.Wait()
	for i, c := range checks {
		if c.Alone {
			run(i)
		}
	}
	for i, c := range checks {
		if failures != nil || !surprising(i) {
			continue
		}
		first := results[i].Output
		results[i], failures = one(ctx, place, facts, c)
		results[i].Again = results[i].Outcome == Passed
		results[i].Output = first
		tell(c, results[i])
	}
	return results, failures
}

// one runs a check. A check that fails is a result, not an error.
func one(ctx context.Context, place Place, facts Facts, c Check) (Result, error) {
	result := Result{Name: c.Name, Outcome: NotApplicable}
	if !facts.offers(c.Needs) {
		return result, nil
	}
	// The name of the check's own things, and the first of ten ports.
	head := fmt.Sprintf("N=c%03d P=%d NAME=%s OUTSIDE=%s VERSION=%s\n. /compat/lib.bash\n", c.Number, 20000+10*c.Number, c.Name, place.Outside(), facts.Version)
	var out bytes.Buffer
	began := time.Now()
	exit, err := place.Exec(ctx, &out, "timeout", "--kill-after=10", strconv.Itoa(int(c.Limit.Seconds())), "bash", "-c", head+c.Body)
	if err != nil {
		return result, fmt.Errorf("%s: %w", c.Name, err)
	}
	result.Seconds = time.Since(began).Seconds()
	if exit == 0 {
		result.Outcome = Passed
		return result, nil
	}
	result.Outcome = Failed
	if exit == 124 || exit == 137 {
		fmt.Fprintf(&out, "\nended by the time limit of %s\n", c.Limit)
	}
	text := out.Bytes()
	result.Output = string(bytes.ToValidUTF8(text[max(0, len(text)-outputKept):], []byte("?")))
	return result, nil
}
