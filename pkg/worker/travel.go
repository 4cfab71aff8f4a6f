package worker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/durable"
	"github.com/innerdock/innerdock/pkg/runtime"
	"github.com/innerdock/innerdock/pkg/store"
	"github.com/innerdock/innerdock/pkg/worker/archive"
)

// keyBytes are those of the key that snapshots are sealed with.
const keyBytes = 32

// snapshotKey returns the key that this server seals snapshots with, and made itself
// unless somebody has put another server's there.
func (w *Worker) snapshotKey() ([]byte, error) {
	w.keyMu.Lock()
	defer w.keyMu.Unlock()
	path := filepath.Join(w.Data, "snapshot.key")
	key, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		key = make([]byte, keyBytes)
		_, _ = rand.Read(key) // it never fails
		draft := durable.Draft(w.Data, "snapshot.key")
		if err = os.WriteFile(draft, key, 0o600); err == nil {
			err = errors.Join(durable.Sync(draft), durable.Publish(draft, path))
		}
	}
	if err == nil && len(key) < keyBytes {
		err = fmt.Errorf("%s has %d bytes, and at least %d are needed", path, len(key), keyBytes)
	}
	if err != nil {
		return nil, innerdock.Internal(err, "reading the key of snapshots")
	}
	return key, nil
}

// ExportSnapshot writes an archive of a tenant's snapshot, with its image if that is to
// come along. begin is called before the first byte.
func (w *Worker) ExportSnapshot(ctx context.Context, tenant, id string, withImage bool, begin func(), out io.Writer) error {
	snap, err := w.Store.Snapshot(ctx, tenant, id)
	if err != nil {
		return err
	}
	key, err := w.snapshotKey()
	if err != nil {
		return err
	}
	image, err := w.images.Get(ctx, snap.Image)
	if err != nil {
		return err
	}
	m := archive.Manifest{Build: snap.Build, Sandbox: snap.Sandbox, Image: image.ID, ImageDigest: image.Digest,
		CPU: snap.CPU, Memory: snap.Memory, Disk: snap.Disk, Shape: snap.Shape, Docker: snap.Spec.Docker, DockerRuns: snap.Docker,
		Network: snap.Spec.Network, AutoPause: snap.Spec.AutoPause, Env: snap.Env, TakenAt: snap.CreatedAt}
	m.Docker.Profile = snap.Profile
	if m.Files, err = archive.Describe(w.snapshotDir(id)); err != nil {
		return innerdock.Internal(err, "reading a snapshot")
	}
	var along func(io.Writer) error
	if withImage {
		along = func(to io.Writer) error { return w.images.Export(ctx, image.ID, func() {}, to) }
	}
	begin()
	return archive.Write(ctx, out, m, w.snapshotDir(id), key, along)
}

// ImportSnapshot makes a tenant's snapshot of an archive. Who is trusted may bring one
// that another server has sealed.
func (w *Worker) ImportSnapshot(ctx context.Context, tenant string, trusted bool, from io.Reader) (innerdock.Snapshot, error) {
	key, err := w.snapshotKey()
	if err != nil {
		return innerdock.Snapshot{}, err
	}
	a, err := archive.Read(ctx, from)
	if err != nil {
		return innerdock.Snapshot{}, err
	}
	snap, err := w.planImport(tenant, a.Manifest)
	if err != nil {
		return innerdock.Snapshot{}, err
	}
	if err := w.Store.InsertSnapshot(ctx, snap, w.quota()); err != nil {
		return innerdock.Snapshot{}, err
	}
	lasting := context.WithoutCancel(ctx)
	if err := w.receive(ctx, a, &snap, key, trusted); err != nil {
		undo, cancel := context.WithTimeout(lasting, endTimeout)
		defer cancel()
		return innerdock.Snapshot{}, errors.Join(err, w.removeSnapshot(undo, snap.ID))
	}
	w.Logger.Info("a snapshot was imported", "snapshot", snap.ID, "container_id", snap.Sandbox, "bytes", snap.Size)
	return w.shown(snap), nil
}

// planImport checks what an archive says of itself.
func (w *Worker) planImport(tenant string, m archive.Manifest) (store.Snapshot, error) {
	invalid := func(format string, args ...any) (store.Snapshot, error) {
		return store.Snapshot{}, innerdock.Errorf(innerdock.CodeInvalid, "the archive is refused: "+format, args...)
	}
	if m.Build != w.build() {
		return store.Snapshot{}, innerdock.Errorf(innerdock.CodeUnsupported,
			"the snapshot was taken with other builds of runsc and the agent (%.100q) than this server's (%q), and only those can use it; import it on a server of the same version of innerdock", m.Build, w.build())
	}
	const most = 1 << 50
	switch {
	case !(m.CPU >= minCPU && m.CPU <= 1<<12):
		return invalid("it has %g cores", m.CPU)
	case m.Memory < minMemory || m.Memory > most || m.Disk < minDisk || m.Disk > most:
		return invalid("it has %d bytes of memory and %d of disk", m.Memory, m.Disk)
	case m.Shape != shape(m.Shape) || m.Shape > most:
		return invalid("it is made for %d bytes of memory", m.Shape)
	case runtime.CheckID(m.Sandbox) != nil:
		return invalid("it is of no sandbox, %.40q", m.Sandbox)
	case m.DockerRuns && !m.Docker.Enabled:
		return invalid("it has a Docker and none")
	}
	// It may hold the memory and the disk, and what gVisor notes of their pages.
	if room := m.Memory + m.Disk; m.Size() > room+room/8+256<<20 {
		return invalid("it has %d MiB, more than its sandbox could have", m.Size()>>20)
	}
	if free := freeDisk(w.Data); free < hostReserve+m.Size() {
		return store.Snapshot{}, innerdock.Errorf(innerdock.CodeUnavailable, "the server's disk has %d MiB left, and the snapshot has %d, with %d kept free; "+
			"remove snapshots or images", free>>20, m.Size()>>20, int64(hostReserve)>>20)
	}
	rec := store.Record{}
	rec.Spec = innerdock.SandboxSpec{Docker: m.Docker, Network: m.Network, AutoPause: m.AutoPause}
	_, policy := policyOf(m.Network)
	if err := errors.Join(planDocker(&rec, m.Docker), policy, planAutoPause(m.AutoPause), checkEnv(m.Env)); err != nil {
		return invalid("%w", err)
	}
	snap := store.Snapshot{Tenant: tenant, Imported: true, Build: m.Build, Spec: rec.Spec, Env: m.Env, Shape: m.Shape, Profile: rec.Docker.Profile}
	snap.Snapshot = innerdock.Snapshot{ID: newID(w.Prefix), Sandbox: m.Sandbox, CPU: m.CPU, Memory: m.Memory, Disk: m.Disk,
		Docker: m.DockerRuns, Size: m.Size(), CreatedAt: time.Now().UTC()}
	return snap, nil
}

// receive makes the files of a snapshot from an archive, finds its image, and says then
// that it is ready.
func (w *Worker) receive(ctx context.Context, a *archive.Reader, snap *store.Snapshot, key []byte, trusted bool) error {
	temp := durable.Draft(w.snapshotsDir(), snap.ID)
	if err := os.Mkdir(temp, 0o700); err != nil {
		return innerdock.Internal(err, "making a snapshot's directory")
	}
	ours, err := a.Unpack(temp, key)
	switch {
	case err != nil:
		return err
	case !ours && !trusted:
		return innerdock.Errorf(innerdock.CodeForbidden, "the archive was not written by this server, and gVisor would trust its content; "+
			"ask an administrator to import it, or to give this server the snapshot.key of the other one's data directory")
	}
	if snap.Image, err = w.imageFor(ctx, a); err != nil {
		return err
	}
	if err := durable.SyncTree(temp); err != nil {
		return innerdock.Internal(err, "writing a snapshot to the disk")
	}
	return w.keep(context.WithoutCancel(ctx), temp, snap)
}

// imageFor finds the image of an archive's snapshot here, or in the archive. It counts
// by its content: under another ID it is the same.
func (w *Worker) imageFor(ctx context.Context, a *archive.Reader) (string, error) {
	image, err := w.images.Get(ctx, a.Manifest.Image)
	if err == nil && image.Digest == a.Manifest.ImageDigest {
		return image.ID, nil
	}
	if !a.Manifest.WithImage {
		return "", innerdock.Errorf(innerdock.CodeImageNotFound, "the image %.80q of the snapshot is neither here nor in the archive; export it with its image", a.Manifest.Image)
	}
	content, err := a.Image()
	if err != nil {
		return "", err
	}
	if image, err = w.images.Import(ctx, content, nil); err != nil {
		return "", err
	}
	if image.Digest != a.Manifest.ImageDigest {
		return "", innerdock.Errorf(innerdock.CodeInvalid, "the archive is refused: its image has the digest %s here, and the snapshot needs %.80q", image.Digest, a.Manifest.ImageDigest)
	}
	return image.ID, nil
}
