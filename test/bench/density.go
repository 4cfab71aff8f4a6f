package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/runtime"
)

// density measures what many idle sandboxes with Docker cost at once: the memory
// of each, and what they do to requests.
func (b *bench) density(ctx context.Context) (err error) {
	if _, err := b.client.CreateTemplate(ctx, innerdock.TemplateSpec{Image: b.image.ID}); err != nil {
		return err
	}
	probe, err := b.client.CreateSandbox(ctx, innerdock.SandboxSpec{Image: b.plain.ID})
	if err != nil {
		return err
	}
	sandboxes := []innerdock.Sandbox{probe}
	defer func() { err = errors.Join(err, b.terminateAll(context.WithoutCancel(ctx), sandboxes)) }()
	if err := b.requests(ctx, probe.ID, "alone"); err != nil {
		return err
	}
	before, err := available()
	if err != nil {
		return err
	}
	for range b.dense {
		began := time.Now()
		sandbox, err := b.client.CreateSandbox(ctx, b.warmSpec(true))
		if err != nil {
			return fmt.Errorf("after %d sandboxes: %w", len(sandboxes)-1, err)
		}
		sandboxes = append(sandboxes, sandbox)
		if _, err := b.client.WaitDocker(ctx, sandbox.ID); err != nil {
			return err
		}
		b.take("create → Docker answers, with more and more there", inside, time.Since(began).Seconds())
	}
	after, err := available()
	if err != nil {
		return err
	}
	for _, sandbox := range sandboxes[1:] {
		pss, err := proportional(sandbox.ID)
		if err != nil {
			return err
		}
		b.note(densityMemory, "MB", inside, pss/1e6)
	}
	b.note("memory that the machine has less, for each", "MB", inside, (before-after)/float64(b.dense)/1e6)
	return b.requests(ctx, probe.ID, fmt.Sprintf("beside %d", b.dense))
}

// densityMemory has a target.
const densityMemory = "memory of a sandbox (PSS of sentry and gofer, and page cache)"

// requests measures requests to the server and to a sandbox.
func (b *bench) requests(ctx context.Context, id, when string) error {
	for range 5 * b.rounds {
		began := time.Now()
		if _, err := b.client.Sandbox(ctx, id); err != nil {
			return err
		}
		b.take("request to the server, "+when, inside, time.Since(began).Seconds())
		began = time.Now()
		if _, err := b.in(id).exec(ctx, "true"); err != nil {
			return err
		}
		b.take("exec, "+when, inside, time.Since(began).Seconds())
	}
	return nil
}

// proportional is the memory of a sandbox in bytes: the proportional set size of
// its processes, and what its cgroup is charged for files that none of them maps.
func proportional(id string) (float64, error) {
	pids, err := tasks(id)
	if err != nil {
		return 0, err
	}
	cgroup := memoryCgroup(id)
	total := 0.0
	for _, pid := range pids {
		pss, err := field(filepath.Join("/proc", pid, "smaps_rollup"), "Pss:")
		if err != nil {
			return 0, err
		}
		total += pss * 1024
	}
	cache, err := field(filepath.Join(cgroup, "memory.stat"), "cache")
	name := "mapped_file"
	if err != nil {
		if cache, err = field(filepath.Join(cgroup, "memory.stat"), "file"); err != nil {
			return 0, err
		}
		name = "file_mapped"
	}
	mapped, err := field(filepath.Join(cgroup, "memory.stat"), name)
	return total + max(0, cache-mapped), err
}

// memoryCgroup is the directory of a sandbox's memory limit, in either version.
func memoryCgroup(id string) string {
	cgroup := "/sys/fs/cgroup/memory" + runtime.CgroupPath(id)
	if _, err := os.Stat(cgroup); err != nil {
		cgroup = "/sys/fs/cgroup" + runtime.CgroupPath(id)
	}
	return cgroup
}

// tasks are the process IDs of a sandbox on the host.
func tasks(id string) ([]string, error) {
	list, err := os.ReadFile(filepath.Join(memoryCgroup(id), "cgroup.procs"))
	return strings.Fields(string(list)), err
}

// available is the memory in bytes that the machine could still give.
func available() (float64, error) {
	kilobytes, err := field("/proc/meminfo", "MemAvailable:")
	return kilobytes * 1024, err
}

// field is the number that follows a name in one of the kernel's tables.
func field(path, name string) (float64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == name {
			return strconv.ParseFloat(words[1], 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}
