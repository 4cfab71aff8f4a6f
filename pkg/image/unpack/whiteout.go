package unpack

import (
	"strings"

	"github.com/innerdock/innerdock/pkg/image/erofs"
)

// The names by which a layer hides what is below it, as the OCI image
// specification has them.
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	whiteoutMeta   = ".wh..wh."
)

// whiteout hides one name of dir, or all that earlier layers put there.
func (m *Image) whiteout(dir, base string) error {
	at, err := m.resolve(dir)
	if err != nil {
		return err
	}
	name := strings.TrimPrefix(base, whiteoutPrefix)
	switch {
	case base != whiteoutOpaque && strings.HasPrefix(base, whiteoutMeta):
		return nil // aufs' own bookkeeping
	case name == "" || name == "." || name == "..":
		return refused("%q hides no file", clip(base))
	case !at.exists():
		return nil
	}
	hidden := at.entry
	if base != whiteoutOpaque {
		hidden = m.fs.Lookup(at.entry, name)
	}
	if hidden == 0 {
		return nil
	}
	if base != whiteoutOpaque && m.fs.Marks(hidden).Written != m.layer {
		return failed(name, m.fs.Remove(hidden))
	}
	return failed(name, m.clearBelow(hidden))
}

// clearBelow removes from a directory what earlier layers wrote. Once for each
// layer is enough, and more would cost time.
func (m *Image) clearBelow(dir erofs.Entry) error {
	if !m.fs.IsDir(dir) || m.fs.Marks(dir).Hidden == m.layer {
		return nil
	}
	m.fs.Marks(dir).Hidden = m.layer
	for e := range m.fs.Children(dir) {
		if m.fs.Marks(e).Written == m.layer {
			if err := m.clearBelow(e); err != nil {
				return err
			}
			continue
		}
		if err := m.fs.Remove(e); err != nil {
			return err
		}
	}
	return nil
}
