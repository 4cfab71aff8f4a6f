package image

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/ctxio"
	"github.com/innerdock/innerdock/pkg/durable"
)

// Push sends an image to a registry. progress is called as by Build.
func (s *Store) Push(ctx context.Context, id string, to innerdock.ImagePush, progress func(event string, e innerdock.BuildEvent)) (innerdock.Image, error) {
	ref, err := name.ParseReference(to.Reference)
	if _, ok := ref.(name.Tag); err != nil || !ok {
		return innerdock.Image{}, innerdock.Errorf(innerdock.CodeInvalid, "reference %q is not one to push to; write it like registry.example.com/team/app:1", clip(to.Reference))
	}
	r, artifact, release, err := s.open(id)
	if err != nil {
		return r.Image, err
	}
	defer release()
	img, err := partial.CompressedToImage(artifact)
	if err != nil {
		return r.Image, innerdock.Internal(err, "reading an image")
	}
	say := newReporter(progress)
	updates := make(chan v1.Update, 16)
	told := make(chan struct{})
	go func() {
		defer close(told)
		for u := range updates { // it is closed at the end of the push
			if u.Error == nil {
				say.progress("push", "%s of %s", megabytes(u.Complete), megabytes(u.Total))
			}
		}
	}()
	at := place{repo: ref.Context(), auth: authenticator(to.Credentials)}
	err = remote.Write(ref, img, append(s.remoteOptions(ctx, at), remote.WithProgress(updates))...)
	<-told
	if err != nil {
		return r.Image, pushError(remoteError(ctx, ref, err), ref)
	}
	say.progress("push", "Pushed %s", ref.Name())
	return r.Image, nil
}

// pushError says of a push what remoteError says of a pull.
func pushError(err error, ref name.Reference) error {
	switch innerdock.CodeOf(err) {
	case innerdock.CodeUnauthorized:
		return innerdock.Errorf(innerdock.CodeUnauthorized, "the registry %s does not let this account push %s; check the name, give credentials, or run `docker login %s` as the server's user", ref.Context().RegistryStr(), ref.Name(), ref.Context().RegistryStr())
	case innerdock.CodeImageNotFound:
		return innerdock.Errorf(innerdock.CodeUnavailable, "the registry %s has no room for %s; check the name", ref.Context().RegistryStr(), ref.Name())
	}
	return err
}

// open keeps an image's blobs from being swept until release is called.
func (s *Store) open(id string) (r record, artifact *stored, release func(), err error) {
	if release, err = s.use(); err != nil {
		return r, nil, nil, err
	}
	if r, err = s.record(id); err == nil {
		artifact, err = s.artifactOf(r)
	}
	if err != nil {
		release()
		return r, nil, nil, err
	}
	s.touch(id)
	return r, artifact, release, nil
}

// The files of an archive: of an OCI layout, and Docker's index.
const (
	layoutFile   = "oci-layout"
	indexFile    = "index.json"
	manifestFile = "manifest.json"
	blobsDir     = "blobs/sha256/"
	refName      = "org.opencontainers.image.ref.name"
	dockerName   = "io.containerd.image.name" // by Docker, whose refName is a tag alone
)

// dockerManifest is a line of manifest.json, for `docker load`.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// Export writes an image as a tar archive that is an OCI layout, and that
// `docker load` takes as well. begin is called before the first byte, when
// nothing but the connection can fail any more.
func (s *Store) Export(ctx context.Context, id string, begin func(), w io.Writer) error {
	r, artifact, release, err := s.open(id)
	if err != nil {
		return err
	}
	defer release()
	mediaType, err := artifact.MediaType()
	if err != nil {
		return innerdock.Internal(err, "reading an image's manifest")
	}
	hash, size, err := v1.SHA256(bytes.NewReader(artifact.manifest))
	if err != nil {
		return innerdock.Internal(err, "reading an image's manifest")
	}
	index, err := json.Marshal(v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.OCIImageIndex,
		Manifests: []v1.Descriptor{{MediaType: mediaType, Digest: hash, Size: size, Annotations: map[string]string{refName: r.Image.Base}}},
	})
	if err != nil {
		return innerdock.Internal(err, "describing an image")
	}
	docker := dockerManifest{Config: blobsDir + strings.TrimPrefix(r.Config, "sha256:")}
	if tag, err := name.NewTag(r.Image.Base); err == nil {
		docker.RepoTags = []string{tag.Name()}
	}
	for _, l := range r.Layers {
		docker.Layers = append(docker.Layers, blobsDir+strings.TrimPrefix(l.Digest, "sha256:"))
	}
	manifest, err := json.Marshal([]dockerManifest{docker})
	if err != nil {
		return innerdock.Internal(err, "describing an image")
	}
	begin()
	tw := tar.NewWriter(w)
	for _, f := range []struct {
		name string
		data []byte
	}{
		{layoutFile, []byte(`{"imageLayoutVersion":"1.0.0"}`)}, {indexFile, index}, {manifestFile, manifest},
		{blobsDir + hash.Hex, artifact.manifest}, {docker.Config, artifact.config},
	} {
		if err := writeEntry(tw, f.name, int64(len(f.data)), bytes.NewReader(f.data)); err != nil {
			return err
		}
	}
	written := map[string]bool{}
	for _, l := range r.Layers {
		if written[l.Digest] {
			continue
		}
		written[l.Digest] = true
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := s.writeLayer(tw, l); err != nil {
			return err
		}
	}
	return tw.Close()
}

func (s *Store) writeLayer(tw *tar.Writer, l layer) error {
	f, err := os.Open(s.blobPath(l.Digest))
	if err != nil {
		return innerdock.Internal(err, "reading a layer")
	}
	defer f.Close()
	return writeEntry(tw, blobsDir+strings.TrimPrefix(l.Digest, "sha256:"), l.Size, f)
}

func writeEntry(tw *tar.Writer, name string, size int64, content io.Reader) error {
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644}); err != nil {
		return err
	}
	_, err := io.Copy(tw, content)
	return err
}

// sourceArchive is where an imported image came from.
const sourceArchive = "archive"

// Import makes an image of a tar archive: an OCI layout, or what `docker save`
// writes. The archive is hostile: its names are looked up and never opened.
func (s *Store) Import(ctx context.Context, archive io.Reader, progress func(event string, e innerdock.BuildEvent)) (innerdock.Image, error) {
	return s.importFrom(ctx, archive, origin{source: sourceArchive}, newReporter(progress))
}

// origin is where an archive came from. Without a base, the archive names it.
type origin struct{ base, source string }

// importFrom makes an image of an archive.
func (s *Store) importFrom(ctx context.Context, archive io.Reader, from origin, say reporter) (innerdock.Image, error) {
	r, err := s.working("import", func(ws *workspace) (record, error) {
		i := importer{store: s, ws: ws, from: from, left: s.limits.Bytes, files: map[string]imported{}}
		return i.image(ctx, archive, say)
	})
	return r.Image, err
}

// maxImported is how many files an archive may have.
const maxImported = 4 * maxLayers

type importer struct {
	store *Store
	ws    *workspace
	from  origin
	left  int64 // bytes that the archive may still have
	files map[string]imported
}

// imported is a file of the archive.
type imported struct {
	path   string // in the workspace
	digest string
	size   int64
}

func (i *importer) image(ctx context.Context, archive io.Reader, say reporter) (record, error) {
	say.progress("import", "Reading the archive")
	if err := i.read(ctx, archive); err != nil {
		return record{}, err
	}
	var c content
	var base string
	var err error
	if _, ok := i.files[indexFile]; ok {
		c, base, err = i.layout()
	} else {
		c, base, err = i.dockerArchive()
	}
	if err != nil {
		return record{}, err
	}
	digest, _, err := v1.SHA256(bytes.NewReader(slices.Concat(c.manifest, c.rawConfig)))
	if err != nil {
		return record{}, innerdock.Internal(err, "hashing an archive")
	}
	b := build{store: i.store, say: say, ws: i.ws, base: resolution{Ref: cmp.Or(i.from.base, base), Source: i.from.source, Digest: digest.String()}}
	if b.id, err = (plan{}).id(b.base); err != nil {
		return record{}, err
	}
	lock, err := i.store.lock(ctx, "image-"+strings.TrimPrefix(b.id, "sha256:"), nil)
	if err != nil {
		return record{}, err
	}
	defer lock.unlock()
	if r, err := i.store.record(b.id); innerdock.CodeOf(err) != innerdock.CodeImageNotFound {
		r.Image.Cached = true
		i.store.touch(b.id)
		return r, err
	}
	for _, l := range c.layers {
		if err := i.commit(l); err != nil {
			return record{}, err
		}
	}
	if err := os.Mkdir(i.ws.path("image"), 0o700); err != nil {
		return record{}, diskError(err, "making a temporary directory")
	}
	r, err := b.fromContent(ctx, c)
	if err != nil {
		return record{}, err
	}
	say.progress("image", "The image is ready: %s", megabytes(r.Image.Size))
	return r, nil
}

// commit puts a layer of the archive into the store.
func (i *importer) commit(l layer) error {
	if i.store.hasBlob(l) {
		return nil
	}
	for _, f := range i.files {
		if f.digest != l.Digest {
			continue
		}
		file, err := os.Open(f.path)
		if err == nil {
			err = errors.Join(file.Sync(), file.Close())
		}
		if err == nil {
			err = durable.Publish(f.path, i.store.blobPath(l.Digest))
		}
		return diskError(err, "storing a layer")
	}
	return broken("it lacks the layer %s", l.Digest)
}

// read takes the archive's files apart.
func (i *importer) read(ctx context.Context, archive io.Reader) error {
	tr := tar.NewReader(ctxio.Reader(ctx, archive))
	for n := 0; ; n++ {
		hdr, err := tr.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return broken("it is not a sound tar archive (%v)", err)
		case n > maxImported:
			return broken("it has more than %d files", maxImported)
		case hdr.Typeflag != tar.TypeReg:
			continue
		}
		if i.left -= hdr.Size; hdr.Size < 0 || i.left < 0 {
			return innerdock.Errorf(innerdock.CodeTooLarge, "the archive is larger than %d MiB", i.store.limits.Bytes>>20)
		}
		if err := i.file(hdr, tr); err != nil {
			return err
		}
	}
}

func (i *importer) file(hdr *tar.Header, content io.Reader) error {
	blob, err := i.ws.blob()
	if err != nil {
		return err
	}
	defer blob.file.Close() // the workspace goes as a whole
	if _, err := io.CopyN(blob, content, hdr.Size); err != nil {
		if code := innerdock.CodeOf(diskError(err, "reading the archive")); code == innerdock.CodeExhausted {
			return diskError(err, "reading the archive")
		}
		return broken("%q cannot be read (%v)", clip(hdr.Name), err)
	}
	f := imported{path: blob.file.Name(), digest: blob.digest(), size: blob.size}
	path := strings.TrimPrefix(hdr.Name, "./")
	if hex, ok := strings.CutPrefix(path, blobsDir); ok && f.digest != "sha256:"+hex {
		return broken("%q has the digest %s", clip(hdr.Name), f.digest)
	}
	if _, ok := i.files[path]; ok {
		return broken("it has %q twice", clip(hdr.Name))
	}
	i.files[path] = f
	return nil
}

// small returns the content of a file that describes something.
func (i *importer) small(path string) ([]byte, error) {
	f, ok := i.files[path]
	if !ok {
		return nil, broken("it lacks %q", clip(path))
	}
	if f.size > maxConfigSize {
		return nil, broken("%q has %d bytes", clip(path), f.size)
	}
	data, err := os.ReadFile(f.path)
	if err != nil {
		return nil, innerdock.Internal(err, "reading an archive")
	}
	return data, nil
}

func (i *importer) blob(h v1.Hash) ([]byte, error) {
	if h.Algorithm != "sha256" {
		return nil, broken("it has the digest %q", clip(h.String()))
	}
	return i.small(blobsDir + h.Hex)
}

// layout reads an OCI layout.
func (i *importer) layout() (content, string, error) {
	data, err := i.small(indexFile)
	if err != nil {
		return content{}, "", err
	}
	base := sourceArchive
	var chosen *v1.Descriptor
	for depth := 0; chosen == nil || chosen.MediaType.IsIndex(); depth++ {
		if depth > 2 {
			return content{}, "", broken("its indexes are nested")
		}
		index, err := v1.ParseIndexManifest(bytes.NewReader(data))
		if err != nil {
			return content{}, "", broken("its index cannot be read (%v)", err)
		}
		if chosen, err = choose(index.Manifests); err != nil {
			return content{}, "", err
		}
		if ref, err := name.ParseReference(cmp.Or(chosen.Annotations[dockerName], chosen.Annotations[refName])); err == nil && base == sourceArchive {
			base = ref.Name()
		}
		if data, err = i.blob(chosen.Digest); err != nil {
			return content{}, "", err
		}
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(data))
	if err != nil {
		return content{}, "", broken("its manifest cannot be read (%v)", err)
	}
	raw, err := i.blob(manifest.Config.Digest)
	if err != nil {
		return content{}, "", err
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(raw))
	if err != nil {
		return content{}, "", broken("its configuration cannot be read (%v)", err)
	}
	if err := check("the archive", manifest, config); err != nil {
		return content{}, "", err
	}
	c := content{config: config, rawConfig: raw, manifest: data}
	for n, d := range manifest.Layers {
		f, ok := i.files[blobsDir+d.Digest.Hex]
		if !ok || f.size != d.Size {
			return content{}, "", broken("it lacks the layer %s, or a part of it", clip(d.Digest.String()))
		}
		c.layers = append(c.layers, layer{Digest: f.digest, DiffID: config.RootFS.DiffIDs[n].String(), Size: f.size, MediaType: d.MediaType})
	}
	return c, base, nil
}

// choose finds the one image for this machine.
func choose(all []v1.Descriptor) (*v1.Descriptor, error) {
	var fits []v1.Descriptor
	for _, d := range all {
		if (d.MediaType.IsImage() || d.MediaType.IsIndex()) && (d.Platform == nil || d.Platform.Satisfies(platform)) {
			fits = append(fits, d)
		}
	}
	switch {
	case len(fits) == 1:
		return &fits[0], nil
	case len(fits) == 0 && len(all) > 0:
		return nil, innerdock.Errorf(innerdock.CodeImageNotFound, "the archive has no image for %s", platform)
	}
	return nil, broken("it has %d images for %s, and one is imported at a time", len(fits), platform)
}

// dockerArchive reads what earlier versions of `docker save` write.
func (i *importer) dockerArchive() (content, string, error) {
	data, err := i.small(manifestFile)
	if err != nil {
		return content{}, "", broken("it is neither an OCI layout nor of `docker save`")
	}
	var manifests []dockerManifest
	if err := json.Unmarshal(data, &manifests); err != nil || len(manifests) != 1 {
		return content{}, "", broken("it has %d images, and one is imported at a time", len(manifests))
	}
	m := manifests[0]
	raw, err := i.small(m.Config)
	if err != nil {
		return content{}, "", err
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(raw))
	if err != nil {
		return content{}, "", broken("its configuration cannot be read (%v)", err)
	}
	if err := checkPlatform("the archive", config); err != nil {
		return content{}, "", err
	}
	if len(m.Layers) != len(config.RootFS.DiffIDs) || len(m.Layers) > maxLayers {
		return content{}, "", broken("its configuration names %d layers and its manifest %d", len(config.RootFS.DiffIDs), len(m.Layers))
	}
	c := content{config: config, rawConfig: raw}
	for n, path := range m.Layers {
		f, ok := i.files[path]
		if !ok {
			return content{}, "", broken("it lacks the layer %q", clip(path))
		}
		l := layer{Digest: f.digest, DiffID: config.RootFS.DiffIDs[n].String(), Size: f.size, MediaType: types.OCIUncompressedLayer}
		if l.Digest != l.DiffID {
			l.MediaType = types.OCILayer
		}
		c.layers = append(c.layers, l)
	}
	base := sourceArchive
	for _, tag := range m.RepoTags {
		if ref, err := name.ParseReference(tag); err == nil {
			base = cmp.Or(ref.Name(), base)
		}
	}
	return c, base, nil
}

func broken(format string, args ...any) error {
	return innerdock.Errorf(innerdock.CodeInvalid, "the archive is refused: "+format, args...)
}
