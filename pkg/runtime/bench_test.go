package runtime_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/innerdock/innerdock/pkg/runtime"
	"github.com/innerdock/innerdock/pkg/runtime/runtimetest"
	"golang.org/x/sys/unix"
)

// BenchmarkStart measures how long a sandbox with Docker's mounts takes until
// PID 1 has dialled home (ready-ms), and until it is deleted again (delete-ms);
// medians. tools/runsc/measure.sh runs it for several builds of runsc.
func BenchmarkStart(b *testing.B) {
	inTwo := func(b *testing.B, h host, s runtime.Spec) {
		if _, err := h.Create(b.Context(), s); err != nil {
			b.Fatal(err)
		}
		if err := h.Start(b.Context(), s.ID); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("small-table", func(b *testing.B) {
		defer func(size int) { *runtime.TableSize = size }(*runtime.TableSize)
		*runtime.TableSize = 0
		// An inherited file with a high number would make the table large all the same.
		if err := unix.CloseRange(100, math.MaxInt32, 0); err != nil {
			b.Fatal(err)
		}
		benchmark(b, inTwo)
	})
	b.Run("as-it-is", func(b *testing.B) { benchmark(b, inTwo) })
	b.Run("run-detached", func(b *testing.B) {
		benchmark(b, func(b *testing.B, h host, s runtime.Spec) {
			if err := h.RunDetached(b.Context(), s); err != nil {
				b.Fatal(err)
			}
		})
	})
}

func benchmark(b *testing.B, start func(*testing.B, host, runtime.Spec)) {
	h := newHost(b)
	once := func() (ready, deleted time.Duration) {
		s := h.spec(b, "describe")
		s.Docker, s.DockerDir, s.Disk = true, h.dir+"/docker", 1<<30
		told := runtimetest.Telling(b, s)
		begin := time.Now()
		start(b, h, s)
		told(nil)
		ready = time.Since(begin)
		begin = time.Now()
		if err := h.Delete(b.Context(), s.ID); err != nil {
			b.Fatal(err)
		}
		return ready, time.Since(begin)
	}
	once() // the first below a root directory makes what the others share
	var ready, deleted []time.Duration
	for b.Loop() {
		r, d := once()
		ready, deleted = append(ready, r), append(deleted, d)
	}
	for name, times := range map[string][]time.Duration{"ready-ms": ready, "delete-ms": deleted} {
		slices.Sort(times)
		b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, name)
	}
}
