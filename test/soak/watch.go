package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/innerdock/innerdock/test/census"
)

// patience is how long what must come true may take.
const patience = 2 * time.Minute

// sample is what the server has at a moment.
type sample struct {
	at      string
	memory  string // resident, as the kernel writes it
	files   int    // open
	threads string
	disk    int64 // bytes of its data
	live    int   // sandboxes
}

func (s *soak) sample() sample {
	now := sample{at: s.clock(), files: s.openFiles()}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.server.PID()))
	for line := range strings.Lines(string(status)) {
		switch name, value, _ := strings.Cut(line, ":"); name {
		case "VmRSS":
			now.memory = strings.TrimSpace(value)
		case "Threads":
			now.threads = strings.TrimSpace(value)
		}
	}
	_ = filepath.WalkDir(s.server.Data(), func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // it is gone by now
		}
		if info, err := d.Info(); err == nil {
			now.disk += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	live, _ := s.client.Sandboxes(ctx, false)
	now.live = len(live)
	return now
}

func (s *soak) openFiles() int {
	open, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.server.PID()))
	return len(open)
}

func (s *soak) print(now sample) {
	fmt.Printf("%s the server has %s of memory, %d open files, %s threads, %d MB of data and %d sandboxes\n",
		now.at, now.memory, now.files, now.threads, now.disk/1e6, now.live)
}

// empty ends every sandbox, and is an error when anything is left of one.
func (s *soak) empty(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	left, err := s.client.Sandboxes(ctx, false)
	for _, sandbox := range left {
		// Nobody was told of those that a server had just made when it was killed.
		if s.kills.Load() == 0 {
			err = errors.Join(err, fmt.Errorf("nobody has sandbox %s, which is %s", sandbox.ID, sandbox.State))
		}
		_, failure := s.client.Terminate(ctx, sandbox.ID)
		err = errors.Join(err, failure)
	}
	err = errors.Join(err, s.client.EndBuilder(ctx))
	return errors.Join(err, until(ctx, func() error { return s.noTrace(ctx, "") }))
}

// noTrace is an error when anything is left of a sandbox; "" is all of them.
func (s *soak) noTrace(ctx context.Context, id string) error {
	left, err := census.Take(ctx, s.server.Data())
	for _, line := range left {
		if strings.Contains(line, id) {
			err = errors.Join(err, fmt.Errorf("left of sandbox %s: %s", id, line))
		}
	}
	return err
}

// settle waits until the server has no more files open than before.
func (s *soak) settle(ctx context.Context, before int) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	return until(ctx, func() error {
		if now := s.openFiles(); now > before {
			return fmt.Errorf("the server has %d files open, and had %d", now, before)
		}
		return nil
	})
}

// until tries what has no event to wait for, until it succeeds.
func until(ctx context.Context, try func() error) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		}
	}
}
