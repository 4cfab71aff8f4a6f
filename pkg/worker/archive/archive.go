// Package archive is the one file that a snapshot travels in: a tar archive of a
// manifest, the files of the checkpoint, a seal and, if it is to come along, the image.
// It can be written and read as a stream.
//
// Who reads one trusts nothing in it: names are those that the manifest may have, sizes
// those that it says, and nothing is taken for read before the seal. A checkpoint is
// loaded by gVisor's kernel, which takes its own word for it; so the seal tells as well
// whether a server that has the same key has written the archive.
package archive

import (
	"archive/tar"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/ctxio"
)

// Format is the version of the archive.
const Format = 1

// The entries, in their order; the files of the checkpoint are below filesDir.
const (
	manifestEntry = "snapshot.json"
	filesDir      = "checkpoint/"
	sealEntry     = "seal.json"
	imageEntry    = "image.tar"
)

const (
	maxManifest = 1 << 20
	maxSeal     = 4 << 10
	maxFiles    = 16
)

// Manifest describes a snapshot to the server that it comes to.
type Manifest struct {
	Format      int                   `json:"format"`
	Build       string                `json:"build"` // of runsc and the agent: a checkpoint fits no other
	Sandbox     string                `json:"sandbox"`
	Image       string                `json:"image"`        // ID
	ImageDigest string                `json:"image_digest"` // of its root file system, which must be the same
	WithImage   bool                  `json:"with_image"`   // it comes last
	CPU         float64               `json:"cpu"`
	Memory      int64                 `json:"memory"`
	Disk        int64                 `json:"disk"`
	Shape       int64                 `json:"shape"`
	Docker      innerdock.DockerSpec  `json:"docker"`
	DockerRuns  bool                  `json:"docker_runs"`
	Network     innerdock.NetworkSpec `json:"network"`
	AutoPause   float64               `json:"auto_pause,omitempty"`
	Env         map[string]string     `json:"env,omitempty"`
	Files       []File                `json:"files"`
	TakenAt     time.Time             `json:"taken_at"`
}

// File is one of the checkpoint's.
type File struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
}

// Size is what the files take together.
func (m Manifest) Size() (bytes int64) {
	for _, file := range m.Files {
		bytes += file.Size
	}
	return bytes
}

// seal ends what is trusted.
type seal struct {
	SHA256 string `json:"sha256"` // of the manifest's and all files' hashes
	MAC    string `json:"mac"`    // of the same, with the writer's key
}

func sealOf(hashes []byte, key []byte) seal {
	sum := sha256.Sum256(hashes)
	mac := hmac.New(sha256.New, key)
	mac.Write(hashes)
	return seal{hex.EncodeToString(sum[:]), hex.EncodeToString(mac.Sum(nil))}
}

// note adds a file's hash to those that are sealed.
func note(hashes []byte, name string, sum []byte) []byte {
	return fmt.Appendf(hashes, "%s %x\n", name, sum)
}

// Describe lists the files of a checkpoint.
func Describe(dir string) ([]File, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []File
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			return nil, err
		}
		files = append(files, File{entry.Name(), info.Size()})
	}
	return files, nil
}

// Write writes the checkpoint in dir. image, which may be nil, writes the image, the
// same bytes each time that it is called.
func Write(ctx context.Context, w io.Writer, m Manifest, dir string, key []byte, image func(io.Writer) error) error {
	m.Format, m.WithImage = Format, image != nil
	text, err := json.Marshal(m)
	if err != nil {
		return innerdock.Internal(err, "describing a snapshot")
	}
	tw := tar.NewWriter(w)
	if err := entry(tw, manifestEntry, int64(len(text)), func(w io.Writer) error { _, err := w.Write(text); return err }); err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	hashes := note(nil, manifestEntry, sum[:])
	for _, file := range m.Files {
		sum := sha256.New()
		err := entry(tw, filesDir+file.Name, file.Size, func(w io.Writer) error {
			return copyFile(ctx, io.MultiWriter(w, sum), filepath.Join(dir, file.Name))
		})
		if err != nil {
			return err
		}
		hashes = note(hashes, file.Name, sum.Sum(nil))
	}
	if text, err = json.Marshal(sealOf(hashes, key)); err != nil {
		return innerdock.Internal(err, "sealing a snapshot")
	}
	if err := entry(tw, sealEntry, int64(len(text)), func(w io.Writer) error { _, err := w.Write(text); return err }); err != nil {
		return err
	}
	if image != nil {
		var size counter
		if err := image(&size); err != nil {
			return err
		}
		if err := entry(tw, imageEntry, int64(size), image); err != nil {
			return err
		}
	}
	return tw.Close()
}

// counter counts what is written.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

func entry(tw *tar.Writer, name string, size int64, write func(io.Writer) error) error {
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600}); err != nil {
		return err
	}
	return write(tw)
}

func copyFile(ctx context.Context, w io.Writer, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.CopyBuffer(w, ctxio.Reader(ctx, file), make([]byte, 1<<20))
	return err
}

// Reader reads an archive, from its beginning to its end.
type Reader struct {
	Manifest Manifest

	tr     *tar.Reader
	hashes []byte
}

var fileName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,63}\.img$`)

// Read reads what an archive says that it is. Its numbers are for the caller to check.
func Read(ctx context.Context, r io.Reader) (*Reader, error) {
	a := &Reader{tr: tar.NewReader(ctxio.Reader(ctx, r))}
	text, err := a.small(manifestEntry, maxManifest)
	if err != nil {
		return nil, err
	}
	m := &a.Manifest
	if err := json.Unmarshal(text, m); err != nil {
		return nil, broken("its manifest cannot be read (%v)", err)
	}
	switch {
	case m.Format != Format:
		return nil, innerdock.Errorf(innerdock.CodeUnsupported, "the archive has format %d, and this server reads %d; export it again with the same version of innerdock", m.Format, Format)
	case len(m.Files) == 0 || len(m.Files) > maxFiles:
		return nil, broken("it has %d files", len(m.Files))
	}
	seen, total := map[string]bool{}, int64(0)
	for _, file := range m.Files {
		if !fileName.MatchString(file.Name) || seen[file.Name] {
			return nil, broken("%.80q is no name of a file in it", file.Name)
		}
		if total += file.Size; file.Size < 0 || total < 0 {
			return nil, broken("%q has %d bytes", file.Name, file.Size)
		}
		seen[file.Name] = true
	}
	sum := sha256.Sum256(text)
	a.hashes = note(nil, manifestEntry, sum[:])
	return a, nil
}

// Unpack writes the files to dir, which is there. ours says that who wrote the archive
// has the key.
func (a *Reader) Unpack(dir string, key []byte) (ours bool, err error) {
	for _, file := range a.Manifest.Files {
		if err := a.file(dir, file); err != nil {
			return false, err
		}
	}
	text, err := a.small(sealEntry, maxSeal)
	if err != nil {
		return false, err
	}
	var found seal
	if err := json.Unmarshal(text, &found); err != nil {
		return false, broken("its seal cannot be read (%v)", err)
	}
	want := sealOf(a.hashes, key)
	if found.SHA256 != want.SHA256 {
		return false, broken("its content is not what was written")
	}
	return hmac.Equal([]byte(found.MAC), []byte(want.MAC)), nil
}

// Image returns the image that came along. What it is must still be looked at.
func (a *Reader) Image() (io.Reader, error) {
	if _, err := a.next(imageEntry); err != nil {
		return nil, err
	}
	return a.tr, nil
}

// next goes to the entry that must be next.
func (a *Reader) next(name string) (size int64, err error) {
	hdr, err := a.tr.Next()
	switch {
	case errors.Is(err, io.EOF):
		return 0, broken("it ends before %s", name)
	case err != nil:
		return 0, readError(err)
	case hdr.Name != name || hdr.Typeflag != tar.TypeReg:
		return 0, broken("it has %.80q where %s must be", hdr.Name, name)
	}
	return hdr.Size, nil
}

func (a *Reader) small(name string, most int64) ([]byte, error) {
	size, err := a.next(name)
	if err != nil {
		return nil, err
	}
	if size > most {
		return nil, broken("%s has %d bytes", name, size)
	}
	text, err := io.ReadAll(a.tr)
	if err != nil {
		return nil, readError(err)
	}
	return text, nil
}

func (a *Reader) file(dir string, file File) error {
	size, err := a.next(filesDir + file.Name)
	if err != nil {
		return err
	}
	if size != file.Size {
		return broken("%s has %d bytes, and the manifest says %d", file.Name, size, file.Size)
	}
	out, err := os.OpenFile(filepath.Join(dir, file.Name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return innerdock.Internal(err, "writing a snapshot")
	}
	sum := sha256.New()
	_, err = io.CopyBuffer(onlyWriter{io.MultiWriter(sink{out}, sum)}, onlyReader{a.tr}, make([]byte, 1<<20))
	if closed := out.Close(); err == nil && closed != nil {
		err = &writeError{closed}
	}
	if failed := (*writeError)(nil); errors.As(err, &failed) {
		return innerdock.Internal(failed.cause, "writing a snapshot")
	}
	if err != nil {
		return readError(err)
	}
	a.hashes = note(a.hashes, file.Name, sum.Sum(nil))
	return nil
}

// onlyWriter and onlyReader copy by the buffer: a tar.Reader would seek over holes.
type (
	onlyWriter struct{ io.Writer }
	onlyReader struct{ io.Reader }
)

// sink tells errors of writing from those of reading.
type sink struct{ io.Writer }

type writeError struct{ cause error }

func (e *writeError) Error() string { return e.cause.Error() }

func (s sink) Write(p []byte) (int, error) {
	n, err := s.Writer.Write(p)
	if err != nil {
		err = &writeError{err}
	}
	return n, err
}

func readError(err error) error {
	if coded := (*innerdock.Error)(nil); errors.As(err, &coded) {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return broken("it cannot be read to its end (%v)", err)
}

func broken(format string, args ...any) error {
	return innerdock.Errorf(innerdock.CodeInvalid, "the archive is refused: "+format+"; export the snapshot again", args...)
}
