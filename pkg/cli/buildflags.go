package cli

import (
	"time"

	"github.com/spf13/pflag"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/worker"
)

// minBuilderDisk holds Docker's own files and a small image.
const minBuilderDisk = 1 << 30

// buildFlags are those of `innerdock server` that speak of the builds of Dockerfiles.
type buildFlags struct {
	time, idle time.Duration
	disk, pip  string
	size       int64 // of disk, in bytes
	pipSize    int64 // of pip, in bytes
}

func (b *buildFlags) add(f *pflag.FlagSet) {
	f.DurationVar(&b.time, "build-time", worker.DefaultBuildTime, "how long the build of a Dockerfile may take")
	f.DurationVar(&b.idle, "builder-idle", worker.DefaultBuilderIdle, "how long a tenant's builder, with its cache, waits for the next build")
	f.StringVar(&b.disk, "builder-disk", "20Gi", "how large a builder's disk is, with its cache")
	f.StringVar(&b.pip, "pip-cache", "2Gi", "how much of what pip downloads for images is kept for each tenant; 0: nothing")
}

func (b buildFlags) checked() (buildFlags, error) {
	var err error
	if b.size, err = innerdock.ParseQuantity("--builder-disk", b.disk); err != nil {
		return b, err
	}
	if b.pip != "0" {
		if b.pipSize, err = innerdock.ParseQuantity("--pip-cache", b.pip); err != nil {
			return b, err
		}
	}
	switch {
	case b.size < minBuilderDisk:
		return b, usage("--builder-disk %s: a builder needs %d MiB", b.disk, minBuilderDisk>>20)
	case b.time <= 0:
		return b, usage("--build-time %s: write a time such as 30m", b.time)
	case b.idle <= 0:
		return b, usage("--builder-idle %s: write a time such as 2h", b.idle)
	}
	return b, nil
}
