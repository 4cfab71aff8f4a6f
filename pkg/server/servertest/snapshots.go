package servertest

import (
	"context"
	"io"

	"github.com/innerdock/innerdock"
)

// Snapshot says that there can be none: a directory has no memory to keep.
func (b *Backend) Snapshot(ctx context.Context, tenant, idOrName string, _ innerdock.SnapshotSpec) (innerdock.Snapshot, error) {
	_, err := b.Fork(ctx, tenant, idOrName, 1)
	return innerdock.Snapshot{}, err
}

// Snapshots are none.
func (b *Backend) Snapshots(context.Context, string) ([]innerdock.Snapshot, error) {
	return []innerdock.Snapshot{}, nil
}

// DeleteSnapshot finds none.
func (b *Backend) DeleteSnapshot(_ context.Context, _, id string) error {
	return innerdock.Errorf(innerdock.CodeNotFound, "no snapshot %q; `innerdock snapshot ls` lists them", id)
}

// Commit is as Snapshot.
func (b *Backend) Commit(ctx context.Context, tenant, idOrName string) (innerdock.Image, error) {
	_, err := b.Fork(ctx, tenant, idOrName, 1)
	return innerdock.Image{}, err
}

// ExportSnapshot finds none.
func (b *Backend) ExportSnapshot(ctx context.Context, tenant, id string, _ bool, _ func(), _ io.Writer) error {
	return b.DeleteSnapshot(ctx, tenant, id)
}

// ImportSnapshot takes none.
func (b *Backend) ImportSnapshot(context.Context, string, bool, io.Reader) (innerdock.Snapshot, error) {
	return innerdock.Snapshot{}, innerdock.Errorf(innerdock.CodeUnsupported, "this backend keeps no memory of sandboxes")
}

// Fork is as Snapshot.
func (b *Backend) Fork(ctx context.Context, tenant, idOrName string, _ int) ([]innerdock.Sandbox, error) {
	if _, err := b.Sandbox(ctx, tenant, idOrName); err != nil {
		return nil, err
	}
	return nil, innerdock.Errorf(innerdock.CodeUnsupported, "this backend keeps no memory of sandboxes")
}
