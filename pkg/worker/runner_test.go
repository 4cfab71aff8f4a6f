package worker

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/innerdock/innerdock/pkg/image/imagetest"
	"github.com/innerdock/innerdock/pkg/network"
	"github.com/innerdock/innerdock/pkg/runtime"
	"github.com/innerdock/innerdock/pkg/store"
	"github.com/innerdock/innerdock/test/freepool"
)

// realWorker is a worker on the real runtime, network and store.
func realWorker(t *testing.T) *Worker {
	t.Helper()
	data, err := os.MkdirTemp("/var/tmp", "idk-worker-")
	if err != nil {
		t.Fatal(err)
	}
	closed := func(closer func() error) {
		t.Cleanup(func() {
			if err := closer(); err != nil {
				t.Error(err)
			}
		})
	}
	closed(func() error { return os.RemoveAll(data) })
	path, err := exec.CommandContext(t.Context(), "../../tools/runsc/build.sh").Output()
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	rt, err := runtime.NewRunsc(t.Context(), runtime.RunscConfig{
		Path: strings.TrimSpace(string(path)), Root: filepath.Join(data, "runsc"), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	closed(func() error { return rt.Close(context.WithoutCancel(ctx)) })
	db, err := store.Open(ctx, filepath.Join(data, "db"))
	if err != nil {
		t.Fatal(err)
	}
	closed(db.Close)
	pool, err := freepool.In(224)
	if err != nil {
		t.Fatal(err)
	}
	nw, err := network.Open(ctx, network.Config{Prefix: Prefix(data), Pool: pool, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	closed(nw.Close)
	w, err := Open(ctx, Config{Data: data, Prefix: Prefix(data), Store: db, Runtime: rt, Network: nw, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	closed(w.Close)
	return w
}

func TestTheWorkerRunsStepsAsEveryRunnerMust(t *testing.T) {
	imagetest.RunnerConformance(t, realWorker(t))
}
