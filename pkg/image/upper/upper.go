// Package upper turns the writable layer of a sandbox, as `runsc tar
// rootfs-upper` writes it, into an OCI image layer.
//
// runsc writes the upper directory of an overlay as it is: a deleted file is a
// character device 0/0, the second and later ones are hard links to the first,
// and a directory that hides the one below it carries the extended attribute
// trusted.overlay.opaque=y. OCI has marker files instead: ".wh.NAME" and
// ".wh..wh..opq".
package upper

import (
	"archive/tar"
	"errors"
	"io"
	"path"
	"strings"

	"github.com/innerdock/innerdock"
)

const (
	xattr      = "SCHILY.xattr."
	opaque     = xattr + "trusted.overlay.opaque"
	capability = xattr + "security.capability"
	whiteout   = ".wh."
)

// Excluded are the paths that belong to a sandbox and not to an image: its
// mount points, and what the agent writes at start. What lies below them is
// excluded with them.
var Excluded = []string{
	"proc", "sys", "dev", "run/innerdock", ".innerdock", "var/lib/docker",
	"etc/resolv.conf", "etc/hosts", "etc/hostname", "etc/machine-id",
}

// maxEntries is how many files a writable layer may have.
const maxEntries = 4_000_000

// Kept is where Docker's images are in a root; nothing else of a sandbox whose
// Docker pulled them is part of an image.
const Kept = "var/lib/innerdock"

// ToLayer reads the tar of a writable layer from r, to its end, and writes an
// OCI layer to w, without Excluded, device nodes, and files whose own names look
// like whiteouts. Neither end is closed.
func ToLayer(r io.Reader, w io.Writer) error { return convert(r, w, "") }

// KeptToLayer is ToLayer of what is below Kept alone.
func KeptToLayer(r io.Reader, w io.Writer) error { return convert(r, w, Kept) }

func convert(r io.Reader, w io.Writer, within string) error {
	c := converter{
		within: within,
		tr:     tar.NewReader(r), tw: tar.NewWriter(w),
		whiteouts: map[string]bool{}, skipped: map[string]bool{},
	}
	for n := 0; ; n++ {
		if n > maxEntries {
			return innerdock.Errorf(innerdock.CodeTooLarge, "what was written is more than the %d files that an image may hold; remove some, at the end of the step that made them", maxEntries)
		}
		hdr, err := c.tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return innerdock.Internal(err, "reading the sandbox's writable layer")
		}
		if err := c.entry(hdr); err != nil {
			return err
		}
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return innerdock.Internal(err, "reading the sandbox's writable layer")
	}
	return c.tw.Close()
}

type converter struct {
	within    string // what of it is converted; "": all
	tr        *tar.Reader
	tw        *tar.Writer
	whiteouts map[string]bool // names that stand for deleted files
	skipped   map[string]bool // names that were left out
}

func (c *converter) entry(hdr *tar.Header) error {
	name := relative(hdr.Name)
	if c.within != "" && name != c.within && !strings.HasPrefix(name, c.within+"/") {
		return nil
	}
	dir, base := path.Split(name)
	if c.isWhiteout(hdr) {
		c.whiteouts[name] = true
		if excluded(name) {
			return nil
		}
		return c.marker(dir+whiteout+base, hdr)
	}
	link := ""
	if hdr.Typeflag == tar.TypeLink {
		link = relative(hdr.Linkname)
	}
	if excluded(name) || strings.HasPrefix(base, whiteout) || !kept(hdr.Typeflag) || c.skipped[link] {
		c.skipped[name] = true
		return nil
	}
	return c.copy(hdr, name, link)
}

// isWhiteout reports whether hdr is a deleted file.
func (c *converter) isWhiteout(hdr *tar.Header) bool {
	switch hdr.Typeflag {
	case tar.TypeChar:
		return hdr.Devmajor == 0 && hdr.Devminor == 0
	case tar.TypeLink:
		return c.whiteouts[relative(hdr.Linkname)]
	}
	return false
}

// copy writes an entry with what an image keeps of it, and the marker that an
// opaque directory needs.
func (c *converter) copy(hdr *tar.Header, name, link string) error {
	out := &tar.Header{
		Typeflag: hdr.Typeflag, Name: name, Linkname: hdr.Linkname,
		Mode: hdr.Mode, Uid: hdr.Uid, Gid: hdr.Gid, ModTime: hdr.ModTime, Size: hdr.Size,
		Format: tar.FormatPAX,
	}
	if link != "" {
		out.Linkname = link
	}
	if hdr.Typeflag == tar.TypeDir {
		out.Name += "/"
		out.Size = 0
	}
	if v, ok := hdr.PAXRecords[capability]; ok {
		out.PAXRecords = map[string]string{capability: v}
	}
	if err := c.tw.WriteHeader(out); err != nil {
		return err
	}
	if hdr.Typeflag == tar.TypeReg {
		if _, err := io.Copy(c.tw, c.tr); err != nil {
			return err
		}
	}
	if hdr.Typeflag == tar.TypeDir && hdr.PAXRecords[opaque] == "y" && name != "." {
		return c.marker(name+"/"+whiteout+whiteout+".opq", hdr)
	}
	return nil
}

func (c *converter) marker(name string, hdr *tar.Header) error {
	return c.tw.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Mode: 0o600, ModTime: hdr.ModTime, Format: tar.FormatPAX,
	})
}

// kept reports whether an image keeps entries of the type.
func kept(typeflag byte) bool {
	switch typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink:
		return true
	}
	return false
}

func excluded(name string) bool {
	for _, e := range Excluded {
		if name == e || strings.HasPrefix(name, e+"/") {
			return true
		}
	}
	return false
}

// relative makes "./usr/bin/" "usr/bin", and "./" ".".
func relative(name string) string {
	clean := strings.TrimPrefix(path.Clean("/"+name), "/")
	if clean == "" {
		return "."
	}
	return clean
}
