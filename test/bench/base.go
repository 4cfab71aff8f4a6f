package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/innerdock/innerdock"
)

const (
	baseTar   = "/tmp/base.tar"
	baseBytes = 500 << 20
	baseSeed  = 20 // any: the base is the same in every run
)

// layBase imports the base image in a place: busybox, and files of mixed sizes
// that make it 500 MB.
func (b *bench) layBase(ctx context.Context, p *place) error {
	shell, err := b.busybox(ctx)
	if err != nil {
		return err
	}
	reader, writer := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := writeBase(writer, shell)
		written <- err
		writer.CloseWithError(err)
	}()
	err = p.put(ctx, baseTar, 0o644, reader)
	reader.CloseWithError(err)
	if err := errors.Join(err, <-written); err != nil {
		return err
	}
	_, err = p.exec(ctx, "docker", "import", baseTar, "base")
	return err
}

// busybox returns the files of that image as a tar, from a sandbox made for it.
func (b *bench) busybox(ctx context.Context) (_ []byte, err error) {
	if b.shell != nil {
		return b.shell, nil
	}
	p, err := b.sandbox(ctx, innerdock.ProfileFull)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.end(ctx)) }()
	b.shell, err = p.shell(ctx, `docker create -q --name shell --network none busybox >&2; docker export shell`)
	return b.shell, err
}

// writeBase writes the base as a tar.
func writeBase(w io.Writer, shell []byte) error {
	out := tar.NewWriter(w)
	if err := errors.Join(writeShell(out, shell), writeFiles(out, "opt/base", baseSeed, baseBytes)); err != nil {
		return err
	}
	return out.Close()
}

func writeShell(out *tar.Writer, shell []byte) error {
	for in := tar.NewReader(bytes.NewReader(shell)); ; {
		header, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := errors.Join(out.WriteHeader(header), copyAll(out, in)); err != nil {
			return err
		}
	}
}

// writeFiles writes files of so many bytes: three quarters of them have a few
// kilobytes, as in /usr/lib of a language, some a few megabytes. Half of each
// file's bytes are random, so that it compresses like a program.
func writeFiles(out *tar.Writer, dir string, seed uint64, bytes int) error {
	random := rand.New(rand.NewPCG(seed, 0))
	content := make([]byte, 8<<20)
	for i := 0; i < len(content); i += 2 * 64 {
		for j := range 64 {
			content[i+j] = byte(random.Uint32())
		}
	}
	for total, i := 0, 0; total < bytes; i++ {
		size := 512 + random.IntN(16<<10)
		switch i % 40 {
		case 0:
			size = random.IntN(2 << 20)
		case 1, 2, 3, 4, 5, 6, 7, 8, 9:
			size = random.IntN(96 << 10)
		}
		start := random.IntN(len(content) - size)
		name := fmt.Sprintf("%s/%03d/%05d", dir, i%211, i)
		if err := out.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(size), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		if _, err := out.Write(content[start : start+size]); err != nil {
			return err
		}
		total += size
	}
	return nil
}

func copyAll(w io.Writer, r io.Reader) error {
	_, err := io.Copy(w, r)
	return err
}
