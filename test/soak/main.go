// Command soak has one server live for a long time as on a bad day: sandboxes of
// every kind come and go side by side, clients give up, programs inside kill and
// hoard, and the server itself is killed again and again. After each life nothing may
// be left of its sandboxes, and in the end nothing of any, and no open file of the
// server. It is not a test of the project's: it takes as long as it is told.
//
//	make soak
//	scripts/soak -for 8h -at-a-time 6
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/test/serving"
)

// poolSecond begins the addresses of the server: 10.poolSecond.
const poolSecond = 248

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// soak is one run.
type soak struct {
	server  *serving.Server
	client  *innerdock.Client
	image   string // with Docker
	started time.Time

	up    sync.RWMutex // held by who kills the server, until there is the next one
	kills atomic.Int64

	mu    sync.Mutex
	tally map[string]*count
}

// count is what became of the lives of a kind.
type count struct {
	lives, cut, failed int
	longest            time.Duration
}

func run(ctx context.Context) (err error) {
	var names []string
	for _, l := range lives {
		names = append(names, l.name)
	}
	options := serving.Options{Second: poolSecond, Flags: []string{"--log-level", "warn"}}
	flag.StringVar(&options.Binary, "innerdock", "bin/innerdock", "the innerdock to start")
	flag.StringVar(&options.Runsc, "runsc", os.Getenv("INNERDOCK_RUNSC"), "its runsc")
	flag.StringVar(&options.Images, "images", "", "its --images directory")
	logFile := flag.String("log", "", "file for the server's log; default: standard error")
	long := flag.Duration("for", 10*time.Minute, "how long; each kind of life is lived once by itself before")
	atATime := flag.Int("at-a-time", 4, "lives side by side")
	kill := flag.Duration("kill", 2*time.Minute, "how often the server is killed and started again; 0: never")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the random numbers that choose")
	only := flag.String("only", "", "kinds of lives, of "+strings.Join(names, ",")+"; all if empty")
	flag.Parse()
	chosen, err := choose(cmp.Or(*only, strings.Join(names, ",")))
	if err != nil {
		return err
	}
	options.Log = os.Stderr
	if *logFile != "" {
		file, failure := os.Create(*logFile)
		if failure != nil {
			return failure
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		options.Log = file
	}
	s := &soak{tally: map[string]*count{}, started: time.Now()}
	if s.server, err = serving.New(options); err != nil {
		return err
	}
	s.client = s.server.Client
	defer func() { err = errors.Join(err, s.server.Remove()) }()
	if err := s.server.Start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.server.Signal(syscall.SIGTERM)) }()
	fmt.Printf("soaking for %s with -seed %d\n", *long, *seed)
	if err := s.prepare(ctx); err != nil {
		return err
	}
	for _, l := range chosen {
		s.live(ctx, l, rand.New(rand.NewPCG(*seed, 0)))
	}
	if err := s.empty(ctx); err != nil {
		return err
	}
	before := s.sample()
	s.side(ctx, chosen, *long, *atATime, *kill, *seed)
	return s.judge(ctx, before)
}

func choose(names string) ([]life, error) {
	var chosen []life
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(lives, func(l life) bool { return l.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-only %s: there is no such life", name)
		}
		chosen = append(chosen, lives[i])
	}
	return chosen, nil
}

// prepare makes what sandboxes are made from.
func (s *soak) prepare(ctx context.Context) error {
	say := func(_ string, e innerdock.BuildEvent) { fmt.Fprintln(os.Stderr, e.Step, e.Message) }
	image, err := s.client.BuildImage(ctx, innerdock.ImageDefinition{PythonVersion: "python3.11",
		Steps: []innerdock.ImageStep{{Docker: &innerdock.DockerInstall{}}}}, say)
	s.image = image.ID
	return errors.Join(err, s.client.SeedRegistry(ctx, innerdock.SeedSpec{IfOffline: true}, nil))
}

// side has lives side by side, and kills the server meanwhile.
func (s *soak) side(ctx context.Context, chosen []life, long time.Duration, atATime int, kill time.Duration, seed uint64) {
	ctx, cancel := context.WithTimeout(ctx, long)
	defer cancel()
	var over sync.WaitGroup
	for i := range atATime {
		over.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(i)+1))
			for ctx.Err() == nil {
				s.live(context.WithoutCancel(ctx), chosen[random.IntN(len(chosen))], random)
			}
		})
	}
	report := time.NewTicker(30 * time.Second)
	defer report.Stop()
	var killing <-chan time.Time
	if kill > 0 {
		ticker := time.NewTicker(kill)
		defer ticker.Stop()
		killing = ticker.C
	}
	for ctx.Err() == nil {
		select {
		case <-report.C:
			s.print(s.sample())
		case <-killing:
			s.restart(ctx)
		case <-ctx.Done():
		}
	}
	over.Wait()
}

// restart kills the server, and starts the next one. There is one in the end.
func (s *soak) restart(ctx context.Context) {
	s.up.Lock()
	defer s.up.Unlock()
	s.kills.Add(1)
	err := s.server.Signal(syscall.SIGKILL)
	began := time.Now()
	start, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	err = errors.Join(err, s.server.Start(start))
	fmt.Printf("%s the server was killed; the next one answered after %d ms\n", s.clock(), time.Since(began).Milliseconds())
	s.note("server", time.Since(began), err, false)
}

func (s *soak) clock() string {
	return time.Since(s.started).Truncate(time.Second).String()
}

// note counts a life. It was cut short if the server was killed meanwhile and that is
// what it ended of.
func (s *soak) note(name string, took time.Duration, err error, cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.tally[name]
	if c == nil {
		c = &count{}
		s.tally[name] = c
	}
	c.lives++
	c.longest = max(c.longest, took)
	switch {
	case cut:
		c.cut++
	case err != nil:
		c.failed++
		fmt.Printf("%s %s failed after %s: %v\n", s.clock(), name, took.Truncate(time.Millisecond), err)
	}
}

// judge ends everything, and says what is wrong.
func (s *soak) judge(ctx context.Context, before sample) error {
	failures := errors.Join(s.empty(ctx), s.settle(ctx, before.files))
	fmt.Println()
	s.print(before)
	s.print(s.sample())
	fmt.Printf("\n%-24s %6s %6s %6s %10s\n", "", "lives", "cut", "failed", "longest")
	failed := 0
	for _, name := range slices.Sorted(maps.Keys(s.tally)) {
		c := s.tally[name]
		failed += c.failed
		fmt.Printf("%-24s %6d %6d %6d %8.1f s\n", name, c.lives, c.cut, c.failed, c.longest.Seconds())
	}
	if failed > 0 {
		failures = errors.Join(failures, fmt.Errorf("%d lives failed", failed))
	}
	return failures
}
