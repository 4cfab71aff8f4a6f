//go:build !race

// The race detector takes several times the memory that is bounded here.

package unpack

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/innerdock/innerdock"
)

// many is a layer of many files, compressed with the largest window.
func (g ground) many(t *testing.T, n int) Layer {
	t.Helper()
	f, err := os.CreateTemp(g.layers, "")
	if err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(f, zstd.WithWindowSize(maxWindow), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	tw := tar.NewWriter(io.MultiWriter(z, sum))
	for i := range n {
		hdr := tar.Header{Typeflag: tar.TypeReg, Mode: 0o644, Name: fmt.Sprintf("d%d/a-name-as-long-as-they-are-%d", i/1000, i)}
		if err := tw.WriteHeader(&hdr); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	return Layer{Blob: f, DiffID: "sha256:" + hex.EncodeToString(sum.Sum(nil))}
}

// mostMemory is what the process may take at most, whatever the image.
const mostMemory = 256 << 20

// TestMemory unpacks an archive of millions of files, with a window as large as
// may be, until the names are too many; and a layer of half as many.
func TestMemory(t *testing.T) {
	needRoot(t)
	for _, tc := range []struct {
		files int
		code  innerdock.Code
	}{{300_000, ""}, {1_500_000, innerdock.CodeTooLarge}} {
		t.Run(fmt.Sprint(tc.files), func(t *testing.T) {
			g := newGround(t)
			result, err := g.processLayers(t.Context(), DefaultLimits(), g.many(t, tc.files))
			if got := innerdock.CodeOf(err); got != tc.code {
				t.Errorf("the code is %q, want %q (%v)", got, tc.code, err)
			}
			if result.Memory > mostMemory || result.Memory == 0 {
				t.Errorf("it took %d MiB of memory", result.Memory>>20)
			}
			t.Logf("%d MiB", result.Memory>>20)
		})
	}
}
