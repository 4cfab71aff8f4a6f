package erofs

import (
	"iter"
	"slices"
	"strings"
)

// layout decides where directories, symlinks and inodes go.
type layout struct {
	*tree
	blocks int64 // the next block of what is outside of inodes
	next   int64 // the next byte among the inodes
	order  []Entry
}

// place gives places to a directory, to the files in it, and to what is below.
func (l *layout) place(dir Entry) {
	first := len(l.order)
	l.order = append(l.order, slices.Collect(l.Children(dir))...)
	children := l.order[first:]
	children = slices.DeleteFunc(children, func(e Entry) bool { return l.inodeOf(e).mode&typeMask == typeAbsent })
	slices.SortFunc(children, func(a, b Entry) int { return strings.Compare(l.nameOf(a), l.nameOf(b)) })
	l.order = l.order[:first+len(children)]
	n := l.inodeOf(dir)
	n.content, n.links = 0, 2
	for _, e := range slices.Backward(children) { // in order from now on
		l.entries.at(uint32(e)).next, n.content = Entry(n.content), uint32(e)
		if l.IsDir(e) {
			n.links++
		}
	}
	packed := packer{}
	for name := range l.dirents(dir) {
		packed.add(len(name))
	}
	n.size = packed.size()
	l.inode(n)
	for _, e := range children {
		if n := l.inodeOf(e); n.mode&typeMask != typeDir && n.number == 0 {
			l.inode(n)
		}
	}
	for _, e := range children {
		if l.IsDir(e) {
			l.place(e)
		}
	}
	l.order = l.order[:first]
}

// inode gives places to an inode and what it has beside regular content.
func (l *layout) inode(n *inode) {
	inline := int64(0)
	if n.mode&typeMask != typeRegular {
		if n.size <= maxInline {
			inline = n.size
		} else {
			n.outside = uint32(l.blocks)
			l.blocks += roundUp(n.size) / blockSize
		}
	}
	if l.next%blockSize+inodeSize+inline > blockSize {
		l.next = roundUp(l.next)
	}
	n.number = uint32(l.next / slotSize)
	l.next = (l.next + inodeSize + inline + inodeSize - 1) &^ (inodeSize - 1)
}

// dirents yields what is in a directory in the order of names, "." and ".."
// included. The entries of those are 0.
func (t *tree) dirents(dir Entry) iter.Seq2[string, Entry] {
	return func(yield func(string, Entry) bool) {
		dots := []string{".", ".."}
		for e := range t.Children(dir) {
			name := t.nameOf(e)
			for len(dots) > 0 && dots[0] < name {
				if !yield(dots[0], 0) {
					return
				}
				dots = dots[1:]
			}
			if !yield(name, e) {
				return
			}
		}
		for _, dot := range dots {
			if !yield(dot, 0) {
				return
			}
		}
	}
}

// packer counts how names fill the blocks of a directory.
type packer struct {
	full int64 // bytes of full blocks
	used int   // bytes of the last one
}

// add reports whether the name begins a new block.
func (p *packer) add(length int) (begins bool) {
	if p.used > 0 && p.used+direntSize+length > blockSize {
		p.full += blockSize
		p.used = 0
		begins = true
	}
	p.used += direntSize + length
	return begins
}

func (p *packer) size() int64 { return p.full + int64(p.used) }
