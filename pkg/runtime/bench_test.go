package runtime_test

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/innerdock/innerdock/pkg/runtime"
	"github.com/innerdock/innerdock/pkg/runtime/runtimetest"
)

// BenchmarkStart measures Create and Start until PID 1 has dialled home, in
// milliseconds: create-ms, start-ms (until runsc start returns), ready-ms (until
// the guest's first bytes), delete-ms; medians. INNERDOCK_RUNSC measures another
// runsc than the pinned one.
func BenchmarkStart(b *testing.B) {
	path := os.Getenv("INNERDOCK_RUNSC")
	if path == "" {
		path = runtimetest.Runsc(b)
	}
	dir := b.TempDir()
	rootfs := runtimetest.Rootfs(b, b.TempDir())
	r, err := runtime.NewRunsc(b.Context(), runtime.RunscConfig{Path: path, Root: dir + "/runsc"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	var create, start, ready, remove []time.Duration
	for b.Loop() {
		s := runtimetest.NewSpec(b, dir, rootfs, "describe")
		s.Docker, s.DockerDir, s.Disk = true, dir+"/docker", 1<<30
		told := runtimetest.Telling(b, s)
		begin := time.Now()
		if err := r.Create(b.Context(), s); err != nil {
			b.Fatal(err)
		}
		created := time.Now()
		if err := r.Start(b.Context(), s.ID); err != nil {
			b.Fatal(err)
		}
		started := time.Now()
		told(nil)
		running := time.Now()
		if err := r.Delete(b.Context(), s.ID); err != nil {
			b.Fatal(err)
		}
		create = append(create, created.Sub(begin))
		start = append(start, started.Sub(created))
		ready = append(ready, running.Sub(begin))
		remove = append(remove, time.Since(running))
	}
	for name, times := range map[string][]time.Duration{"create-ms": create, "start-ms": start, "ready-ms": ready, "delete-ms": remove} {
		slices.Sort(times)
		b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, name)
	}
}
