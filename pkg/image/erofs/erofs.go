// Package erofs makes EROFS files, which gVisor mounts as the root of sandboxes
// by itself.
//
// The same tree always gives the same file: the UUID and the time of making are
// fixed, and files keep their own modification times (Python's compiled modules
// depend on them). gVisor reads neither compressed EROFS nor regular files with
// inline tails, so both are off.
package erofs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image/child"
)

// Epoch stands for the time of making, in seconds: 2100, after which no file of
// an unpacked tree is dated. mkfs.erofs would cut later times down to it.
const Epoch = 4102444800

// Make writes the tree dir into the EROFS file name, which must not exist, and
// syncs it to disk. A half-made file is removed.
func Make(ctx context.Context, dir, name string) error {
	path, err := exec.LookPath("mkfs.erofs")
	if err != nil {
		return innerdock.Errorf(innerdock.CodeUnsupported, "mkfs.erofs is not installed on the server; run: apt-get install erofs-utils")
	}
	cmd := exec.Command(path, argv(dir, name)...)
	cmd.Env = append(cmd.Environ(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", Epoch))
	if err := run(ctx, cmd, name); err != nil {
		_ = os.Remove(name) // the first error tells
		return err
	}
	return nil
}

func run(ctx context.Context, cmd *exec.Cmd, name string) error {
	out, err := child.Output(ctx, cmd)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if strings.Contains(out, syscall.ENOSPC.Error()) || strings.Contains(out, "No space left") {
			return innerdock.Errorf(innerdock.CodeExhausted, "the disk is full; remove images that are not used, or make room in the data directory, and try again")
		}
		return innerdock.Internal(fmt.Errorf("mkfs.erofs: %w: %s", err, out), "making the image's file system")
	}
	f, err := os.Open(name)
	if err != nil {
		return innerdock.Internal(err, "making the image's file system")
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return innerdock.Internal(err, "writing the image's file system to disk")
	}
	return nil
}

func argv(dir, name string) []string {
	return []string{
		"--quiet",
		"-E", "noinline_data,force-inode-extended",
		"-U", "00000000-0000-0000-0000-000000000000",
		name, dir,
	}
}
