package seed

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"

	"github.com/innerdock/innerdock"
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// made is the time in the images: what is made of the same has the same digest.
var made = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// entry is a file of a layer; with link it is a symbolic link, with a name that
// ends in a slash a directory.
type entry struct {
	name    string
	mode    int64
	content []byte
	link    string
}

// header is the entry's head in a tar archive.
func (e entry) header() *tar.Header {
	h := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.content)), ModTime: made, Format: tar.FormatPAX}
	switch {
	case e.link != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.link, 0o777
	case e.name[len(e.name)-1] == '/':
		h.Typeflag = tar.TypeDir
	default:
		h.Typeflag = tar.TypeReg
	}
	return h
}

// newLayer makes a layer of files, in memory.
func newLayer(entries []entry) (v1.Layer, error) {
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	for _, e := range entries {
		if err := tw.WriteHeader(e.header()); err != nil {
			return nil, err
		}
		if _, err := tw.Write(e.content); err != nil {
			return nil, err
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(archive.Bytes())), nil
	}, tarball.WithMediaType(types.DockerLayer))
}

// newImage makes an image of layers for this machine's architecture.
func newImage(config v1.Config, layers ...v1.Layer) (v1.Image, error) {
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		Architecture: runtime.GOARCH, OS: "linux", Created: v1.Time{Time: made}, Author: "innerdock",
		RootFS: v1.RootFS{Type: "layers"}, Config: config,
	})
	if err == nil {
		img, err = mutate.AppendLayers(img, layers...)
	}
	if err != nil {
		return nil, innerdock.Internal(err, "making an image")
	}
	return img, nil
}

// compressTar copies a tar archive, without the entries that keep refuses, and
// compresses it.
func compressTar(from, to string, keep func(*tar.Header) bool) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	gz := gzip.NewWriter(out)
	tr, tw := tar.NewReader(in), tar.NewWriter(gz)
	for {
		header, err := tr.Next()
		if err == io.EOF {
			return errors.Join(tw.Close(), gz.Close())
		}
		if err != nil {
			return err
		}
		if !keep(header) {
			continue
		}
		if err := tw.WriteHeader(header); err != nil {
			return err
		}
		if _, err := io.Copy(tw, tr); err != nil {
			return err
		}
	}
}
