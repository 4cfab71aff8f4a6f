package erofs

import (
	"errors"
	"hash/maphash"
	"io/fs"
	"iter"
	"time"
	"unsafe"
)

// ErrMemory means that there are more names than the Writer may keep.
var ErrMemory = errors.New("too many files to keep in memory")

// Entry is a name in a directory. It is of no use after it was removed.
type Entry uint32

// Root is the entry of the root directory, which is always there.
const Root Entry = 1

// Attributes are what an inode has beside its content.
type Attributes struct {
	Mode     uint16 // permission bits, set-ID and sticky bits included
	UID, GID uint32
	Modified time.Time // from 1970 to 2106
}

// Marks are notes that the user of a Writer keeps at an entry.
type Marks struct{ Written, Hidden uint16 }

// The type bits of an inode's mode.
const (
	typeMask    = 0o170000
	typeRegular = 0o100000
	typeDir     = 0o040000
	typeSymlink = 0o120000
	typeAbsent  = 0o020000 // keeps its place among the names, and is not written
)

type entry struct {
	parent     Entry
	next, prev Entry // among the names of a directory
	chain      Entry // among the names of one hash
	inode      uint32
	name       uint32 // in the names
	length     uint8
	marks      Marks
}

type inode struct {
	mode        uint16
	uid, gid    uint32
	seconds     uint32
	nanoseconds uint32
	links       uint32
	content     uint32 // file: first block; directory: first entry; symlink: in the names
	number      uint32 // nid: where it is among the inodes
	size        int64
	outside     uint32 // block of a directory or symlink that is not behind its inode
}

// tree is all names and inodes.
type tree struct {
	entries table[entry]
	inodes  table[inode]
	names   text
	heads   []Entry // of the chains; a power of two
	used    uint32
	seed    maphash.Seed
	memory  int64 // that may be used
}

func newTree(memory int64) *tree {
	t := &tree{heads: make([]Entry, 1024), seed: maphash.MakeSeed(), memory: memory}
	t.entries.add() // 0: none
	t.inodes.add()
	t.entries.add()
	e := t.entries.at(uint32(Root))
	e.parent = Root
	e.inode, _ = t.inodes.add()
	*t.inodes.at(e.inode) = inode{mode: typeDir | 0o755, links: 1}
	return t
}

// room fails when the next name would need more memory than there may be.
func (t *tree) room() error {
	used := int64(t.entries.length)*int64(unsafe.Sizeof(entry{})+4) + int64(t.inodes.length)*int64(unsafe.Sizeof(inode{})+4) +
		int64(len(t.names.chunks))*textChunk + int64(len(t.heads))*4
	if used > t.memory || len(t.names.chunks) >= 1<<32/textChunk-1 {
		return ErrMemory
	}
	return nil
}

func (t *tree) head(parent Entry, name string) *Entry {
	h := maphash.String(t.seed, name) + uint64(parent)*0x9e3779b97f4a7c15
	h ^= h >> 29
	return &t.heads[h&uint64(len(t.heads)-1)]
}

func (t *tree) nameOf(e Entry) string {
	x := t.entries.at(uint32(e))
	b := t.names.get(x.name, uint32(x.length))
	return unsafe.String(unsafe.SliceData(b), len(b)) // names never change
}

func (t *tree) inodeOf(e Entry) *inode { return t.inodes.at(t.entries.at(uint32(e)).inode) }

// Lookup returns the entry with a name in a directory, or 0.
func (t *tree) Lookup(dir Entry, name string) Entry {
	for e := *t.head(dir, name); e != 0; e = t.entries.at(uint32(e)).chain {
		if t.entries.at(uint32(e)).parent == dir && t.nameOf(e) == name {
			return e
		}
	}
	return 0
}

// Parent returns the directory of an entry; the root's is the root.
func (t *tree) Parent(e Entry) Entry { return t.entries.at(uint32(e)).parent }

// Marks returns the notes at an entry, which are zero at first.
func (t *tree) Marks(e Entry) *Marks { return &t.entries.at(uint32(e)).marks }

// IsDir reports whether an entry is a directory.
func (t *tree) IsDir(e Entry) bool { return t.inodeOf(e).mode&typeMask == typeDir }

// IsAbsent reports whether an entry was made by Absent, or is a link to one.
func (t *tree) IsAbsent(e Entry) bool { return t.inodeOf(e).mode&typeMask == typeAbsent }

// Target returns where a symlink leads; false if it is none.
func (t *tree) Target(e Entry) (string, bool) {
	n := t.inodeOf(e)
	if n.mode&typeMask != typeSymlink {
		return "", false
	}
	return string(t.names.get(n.content, uint32(n.size))), true
}

// Children yields the entries of a directory, in no order. The one yielded may
// be removed.
func (t *tree) Children(dir Entry) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for e := Entry(t.inodeOf(dir).content); e != 0; {
			next := t.entries.at(uint32(e)).next
			if !yield(e) {
				return
			}
			e = next
		}
	}
}

// Change gives an entry other attributes.
func (t *tree) Change(e Entry, a Attributes) {
	n := t.inodeOf(e)
	n.mode = n.mode&typeMask | a.Mode&0o7777
	n.uid, n.gid = a.UID, a.GID
	n.seconds, n.nanoseconds = uint32(a.Modified.Unix()), uint32(a.Modified.Nanosecond())
}

// Mkdir makes a directory. As with all that make an entry, the name must be
// free.
func (t *tree) Mkdir(dir Entry, name string, a Attributes) (Entry, error) {
	return t.make(dir, name, typeDir, a)
}

// Absent makes an entry that takes part until it is replaced or removed, and is
// not in the file.
func (t *tree) Absent(dir Entry, name string) (Entry, error) {
	return t.make(dir, name, typeAbsent, Attributes{Modified: time.Unix(0, 0)})
}

// Symlink makes a symlink.
func (t *tree) Symlink(dir Entry, name, target string, a Attributes) (Entry, error) {
	e, err := t.make(dir, name, typeSymlink, a)
	if err != nil {
		return 0, err
	}
	n := t.inodeOf(e)
	n.content, n.size = t.names.add(target), int64(len(target))
	return e, nil
}

// Link makes another name of an entry that is no directory.
func (t *tree) Link(dir Entry, name string, to Entry) (Entry, error) {
	if t.IsDir(to) {
		return 0, fs.ErrInvalid
	}
	e, err := t.name(dir, name)
	if err != nil {
		return 0, err
	}
	t.entries.at(uint32(e)).inode = t.entries.at(uint32(to)).inode
	t.inodeOf(e).links++
	return e, nil
}

func (t *tree) make(dir Entry, name string, kind uint16, a Attributes) (Entry, error) {
	e, err := t.name(dir, name)
	if err != nil {
		return 0, err
	}
	i, _ := t.inodes.add()
	t.entries.at(uint32(e)).inode = i
	*t.inodes.at(i) = inode{mode: kind, links: 1}
	t.Change(e, a)
	return e, nil
}

// name puts an entry without an inode into a directory.
func (t *tree) name(dir Entry, name string) (Entry, error) {
	if err := t.room(); err != nil {
		return 0, err
	}
	if t.used >= uint32(len(t.heads)) {
		t.grow()
	}
	i, _ := t.entries.add()
	e, parent, head := t.entries.at(i), t.inodeOf(dir), t.head(dir, name)
	*e = entry{parent: dir, next: Entry(parent.content), chain: *head, name: t.names.add(name), length: uint8(len(name))}
	if e.next != 0 {
		t.entries.at(uint32(e.next)).prev = Entry(i)
	}
	parent.content, *head = i, Entry(i)
	t.used++
	return Entry(i), nil
}

// grow doubles the chains.
func (t *tree) grow() {
	old := t.heads
	t.heads = make([]Entry, 2*len(old))
	for _, e := range old {
		for e != 0 {
			x := t.entries.at(uint32(e))
			next, head := x.chain, t.head(x.parent, t.nameOf(e))
			x.chain, *head = *head, e
			e = next
		}
	}
}

// detach takes an entry out of its directory. It returns the inode if that was
// its last name.
func (t *tree) detach(e Entry) *inode {
	x := t.entries.at(uint32(e))
	if x.prev != 0 {
		t.entries.at(uint32(x.prev)).next = x.next
	} else {
		t.inodeOf(x.parent).content = uint32(x.next)
	}
	if x.next != 0 {
		t.entries.at(uint32(x.next)).prev = x.prev
	}
	at := t.head(x.parent, t.nameOf(e))
	for *at != e {
		at = &t.entries.at(uint32(*at)).chain
	}
	*at = x.chain
	t.used--
	n := t.inodes.at(x.inode)
	t.entries.remove(uint32(e))
	if n.links--; n.links > 0 {
		return nil
	}
	t.inodes.remove(x.inode)
	return n
}
