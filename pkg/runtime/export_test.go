package runtime

import (
	"context"
	"path/filepath"
	"slices"
)

// TableSize lets the benchmark go without the large table of descriptors.
var TableSize = &tableSize

// MakeParent lets a test have the hierarchy that there is.
var MakeParent = makeParent

// RunDetached is Create and Start by one process of runsc, for the benchmark.
func (r *Runsc) RunDetached(ctx context.Context, s Spec) error {
	if err := writeBundle(s); err != nil {
		return err
	}
	errorLog := filepath.Join(s.BundleDir, "runsc.log")
	argv := r.config.createArgv(s, errorLog)
	create := slices.Index(argv, "create")
	return r.callDetached(ctx, slices.Replace(argv, create, create+1, "run", "--detach"), errorLog)
}
