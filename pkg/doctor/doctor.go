// Package doctor looks at the machine and says, one line each, what innerdock
// needs of it, whether it is there, and which command mends what is not. It
// tries things rather than believing them: a network namespace and a firewall
// are made, a sandbox is run; and it leaves nothing of that behind.
package doctor

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Status is the outcome of a check.
type Status string

// The outcomes: warn works, and worse than it could.
const (
	OK   Status = "ok"
	Warn Status = "warn"
	Fail Status = "fail"
)

// Check is what was found about one need.
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status" enum:"ok,warn,fail"`
	Detail string `json:"detail" doc:"What was found."`
	Fix    string `json:"fix,omitempty" doc:"The command, or else the step, that mends it."`
}

// Options say what the server would use.
type Options struct {
	Data  string       // the server's data directory; it need not exist
	Runsc string       // path of the runsc binary; "" when none was found
	Pool  netip.Prefix // the sandboxes' addresses; zero for the default
}

// deadline bounds a check; one that takes longer has failed.
const deadline = 20 * time.Second

// Run makes all checks at the same time and returns them in a fixed order.
func Run(ctx context.Context, opts Options) []Check {
	return run(ctx, opts, thisMachine())
}

// Healthy reports whether a server can work: no check has failed.
func Healthy(checks []Check) bool {
	for _, check := range checks {
		if check.Status == Fail {
			return false
		}
	}
	return true
}

// machine is where the checks look.
type machine struct {
	uid     int
	proc    string // /proc
	cgroups string // /sys/fs/cgroup
	kvm     string // /dev/kvm
}

func thisMachine() machine {
	return machine{uid: geteuid(), proc: "/proc", cgroups: "/sys/fs/cgroup", kvm: "/dev/kvm"}
}

func run(ctx context.Context, opts Options, m machine) []Check {
	checks := []func(context.Context) []Check{
		one(m.root),
		one(m.kernel),
		one(m.cgroup),
		one(m.limits),
		networking(opts.Pool),
		one(runscVersion(opts.Runsc)),
		one(m.platform(opts.Runsc)),
		one(mmdebstrap),
		one(disk(opts.Data)),
	}
	found := make([][]Check, len(checks))
	var wg sync.WaitGroup
	for i, check := range checks {
		wg.Go(func() {
			limited, cancel := context.WithTimeout(ctx, deadline)
			defer cancel()
			found[i] = check(limited)
		})
	}
	wg.Wait()
	return slices.Concat(found...)
}

func one(check func(context.Context) Check) func(context.Context) []Check {
	return func(ctx context.Context) []Check { return []Check{check(ctx)} }
}

func ok(name, detail string) Check        { return Check{Name: name, Status: OK, Detail: detail} }
func warn(name, detail, fix string) Check { return Check{name, Warn, detail, fix} }
func fail(name, detail, fix string) Check { return Check{name, Fail, detail, fix} }
