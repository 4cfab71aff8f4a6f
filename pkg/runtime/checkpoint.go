package runtime

import (
	"context"
	"os"
	"path/filepath"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/durable"
)

// Checkpoint implements Runtime.
func (r *Runsc) Checkpoint(ctx context.Context, id, dir string, then After) error {
	if !filepath.IsAbs(dir) {
		return innerdock.Errorf(innerdock.CodeInvalid, "the directory %q of a checkpoint must be absolute", dir)
	}
	// runsc itself would wait for a sandbox that was not started.
	state, err := r.State(ctx, id)
	switch {
	case err != nil:
		return err
	case state.Status != Running && state.Status != Paused:
		return stateError(innerdock.CodeConflict, ErrState, id)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return innerdock.Internal(err, "making the checkpoint's directory")
	}
	if err := r.do(ctx, id, "checkpointing the sandbox", r.config.checkpointArgv(id, dir, then)); err != nil {
		return err
	}
	if err := durable.SyncTree(dir); err != nil {
		return innerdock.Internal(err, "writing the checkpoint to the disk")
	}
	return nil
}

// Restore implements Runtime.
func (r *Runsc) Restore(ctx context.Context, s Spec, dir string) (pid int, err error) {
	if !filepath.IsAbs(dir) {
		return 0, innerdock.Errorf(innerdock.CodeInvalid, "the directory %q of a checkpoint must be absolute", dir)
	}
	return r.make(ctx, s, "restoring the sandbox", func(s Spec, errorLog string) []string {
		return r.config.restoreArgv(s, dir, errorLog)
	})
}
