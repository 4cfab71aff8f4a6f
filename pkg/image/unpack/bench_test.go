package unpack

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// BenchmarkApply unpacks 10,000 files of 20 kB in 500 directories.
func BenchmarkApply(b *testing.B) {
	var entries []entry
	body := strings.Repeat("x", 20_000)
	for d := range 500 {
		entries = append(entries, dir(fmt.Sprintf("usr/lib/python3/%d", d)))
		for f := range 20 {
			entries = append(entries, text(fmt.Sprintf("usr/lib/python3/%d/%d", d, f), body))
		}
	}
	layer := archive(b, entries...)
	b.SetBytes(int64(len(layer)))
	base := b.TempDir()
	i := 0
	for b.Loop() {
		i++
		target := filepath.Join(base, fmt.Sprint(i))
		if err := os.Mkdir(target, 0o700); err != nil {
			b.Fatal(err)
		}
		tree, err := New(target, DefaultLimits())
		if err != nil {
			b.Fatal(err)
		}
		if err := tree.Apply(b.Context(), bytes.NewReader(layer)); err != nil {
			b.Fatal(err)
		}
		if err := tree.Finish(); err != nil {
			b.Fatal(err)
		}
		if err := tree.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
