package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/runtime"
)

// pauseTime is how long the processor time of a sandbox is looked at.
const pauseTime = 10 * time.Second

// pauses measures the processor time of a sandbox with Docker that nobody uses, of the
// same one while it is paused, and of one that is paused in the midst of work.
func (b *bench) pauses(ctx context.Context) (err error) {
	sandbox, err := b.sandbox(ctx, innerdock.ProfileFull)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sandbox.end(ctx)) }()
	const name = "CPU time in 10 s"
	for range max(1, b.starts/4) {
		if err := b.usage(ctx, name+", idle", sandbox.id); err != nil {
			return err
		}
		if err := b.paused(ctx, name+", paused", sandbox.id); err != nil {
			return err
		}
	}
	if _, err := sandbox.shell(ctx, "setsid sh -c 'while :; do :; done' >/dev/null 2>&1 </dev/null &"); err != nil {
		return err
	}
	return b.paused(ctx, name+", paused while busy", sandbox.id)
}

func (b *bench) paused(ctx context.Context, name, id string) error {
	if _, err := b.client.Pause(ctx, id); err != nil {
		return err
	}
	err := b.usage(ctx, name, id)
	_, failure := b.client.Resume(ctx, id)
	return errors.Join(err, failure)
}

// usage takes what a sandbox uses of the processors for a while.
func (b *bench) usage(ctx context.Context, name, id string) error {
	before, err := cgroupCPU(id)
	if err != nil {
		return err
	}
	timer := time.NewTimer(pauseTime)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	after, err := cgroupCPU(id)
	b.take(name, inside, after-before)
	return err
}

// cgroupCPU is the processor time of a sandbox's cgroup in seconds, in either version.
func cgroupCPU(id string) (float64, error) {
	text, err := os.ReadFile(filepath.Join("/sys/fs/cgroup/cpuacct"+runtime.CgroupPath(id), "cpuacct.usage"))
	if err == nil {
		nanoseconds, err := strconv.ParseFloat(strings.TrimSpace(string(text)), 64)
		return nanoseconds / 1e9, err
	}
	microseconds, err := field(filepath.Join("/sys/fs/cgroup"+runtime.CgroupPath(id), "cpu.stat"), "usage_usec")
	return microseconds / 1e6, err
}
