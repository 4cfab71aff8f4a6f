package cli

import (
	"time"

	"github.com/spf13/pflag"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/worker"
)

// snapshotFlags are those of `innerdock server` that speak of snapshots.
type snapshotFlags struct {
	count, keep int
	size        string
	maxAge      time.Duration
}

func (s *snapshotFlags) add(f *pflag.FlagSet) {
	f.IntVar(&s.count, "snapshot-count", 100, "how many snapshots a tenant may have")
	f.StringVar(&s.size, "snapshot-size", "", "how much they may take together with the sandboxes that are paused to the disk, such as 50Gi (default: any amount)")
	f.DurationVar(&s.maxAge, "snapshot-max-age", 0, "how long a snapshot is kept; 0: until somebody removes it")
	f.IntVar(&s.keep, "snapshot-keep", 0, "how many of the last snapshots of a sandbox are kept; 0: all")
}

// policy checks the flags.
func (s *snapshotFlags) policy() (worker.SnapshotPolicy, error) {
	policy := worker.SnapshotPolicy{Count: s.count, MaxAge: s.maxAge, Keep: s.keep}
	switch {
	case s.count < 1:
		return policy, usage("--snapshot-count %d: write at least 1", s.count)
	case s.keep < 0:
		return policy, usage("--snapshot-keep %d: write 0 or more", s.keep)
	case s.maxAge < 0:
		return policy, usage("--snapshot-max-age %s: write a time such as 720h", s.maxAge)
	}
	var err error
	if s.size != "" {
		policy.Bytes, err = innerdock.ParseQuantity("--snapshot-size", s.size)
	}
	return policy, err
}
