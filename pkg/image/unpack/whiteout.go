package unpack

import "strings"

// The names by which a layer hides what is below it, as the OCI image
// specification has them.
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	whiteoutMeta   = ".wh..wh."
)

// whiteout hides one name of dir, or all that earlier layers put there.
func (t *Tree) whiteout(dir, base string) error {
	resolved, err := t.resolve(dir)
	if err != nil {
		return err
	}
	if base == whiteoutOpaque {
		if !t.hideOnce(resolved) {
			return nil
		}
		if err := t.clearBelow(resolved); err != nil {
			return failed(dir, err)
		}
		return nil
	}
	if strings.HasPrefix(base, whiteoutMeta) {
		return nil // aufs' own bookkeeping
	}
	name := strings.TrimPrefix(base, whiteoutPrefix)
	if name == "" || name == "." || name == ".." {
		return refused("%q hides no file", clip(join(dir, base)))
	}
	p := join(resolved, name)
	if !t.hideOnce(p) {
		return nil
	}
	if err := t.clear(p, true); err != nil {
		return failed(p, err)
	}
	if !t.fresh[p] {
		delete(t.dropped, p)
	}
	return nil
}

// inside reports whether p lies below dir.
func inside(p, dir string) bool { return strings.HasPrefix(p, dir+"/") }

// hideOnce reports whether p has not been hidden by this layer yet: a second
// time there is nothing of earlier layers left, and looking costs time.
func (t *Tree) hideOnce(p string) bool {
	if t.hidden[p] {
		return false
	}
	t.hidden[p] = true
	return true
}
