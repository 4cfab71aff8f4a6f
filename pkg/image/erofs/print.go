package erofs

import (
	"encoding/binary"
	"hash/crc32"
)

// The format's numbers.
const (
	superOffset  = 1024
	superMagic   = 0xe0f5e1e2
	inodeSize    = 64
	slotSize     = 32 // inodes are numbered by these
	direntSize   = 12
	maxInline    = blockSize - inodeSize
	featureCRC   = 1 // the superblock has a checksum
	featureMtime = 2 // times are modification times
	extended     = 1 // inodes of 64 bytes
	layoutPlain  = 0 << 1
	layoutInline = 2 << 1
)

// direntKinds are what directories say about their entries.
var direntKinds = map[uint16]byte{typeRegular: 1, typeDir: 2, typeSymlink: 7}

// printer writes what layout has placed, in the same order.
type printer struct {
	*tree
	meta            int64 // where the inodes begin
	outside, inodes *area
	count           uint64
	block           []dirent
}

type dirent struct {
	name   string
	number uint32
	kind   byte
}

// print writes a directory and all that is below it.
func (p *printer) print(dir Entry, parent uint32) error {
	n := p.inodeOf(dir)
	if err := p.inode(n); err != nil {
		return err
	}
	if err := p.directory(dir, n, parent); err != nil {
		return err
	}
	for e := range p.Children(dir) {
		if n := p.inodeOf(e); n.mode&typeMask != typeDir && !p.written(n) {
			if err := p.inode(n); err != nil {
				return err
			}
			if err := p.target(n); err != nil {
				return err
			}
		}
	}
	for e := range p.Children(dir) {
		if p.IsDir(e) {
			if err := p.print(e, n.number); err != nil {
				return err
			}
		}
	}
	return nil
}

// written reports whether an inode with more than one name was written.
func (p *printer) written(n *inode) bool {
	return int64(n.number)*slotSize < p.inodes.end()-p.meta
}

// inode goes to an inode's place and writes it, without what is inline.
func (p *printer) inode(n *inode) error {
	for at := p.meta + int64(n.number)*slotSize; p.inodes.end() < at; {
		if _, err := p.inodes.Write(zeros[:min(at-p.inodes.end(), blockSize)]); err != nil {
			return err
		}
	}
	p.count++
	form, block := uint16(extended|layoutPlain), n.content
	if n.mode&typeMask != typeRegular {
		block = n.outside
		if block == 0 {
			form = extended | layoutInline
		}
	}
	var b [inodeSize]byte
	le := binary.LittleEndian
	le.PutUint16(b[0:], form)
	le.PutUint16(b[4:], n.mode)
	le.PutUint64(b[8:], uint64(n.size))
	le.PutUint32(b[16:], block)
	le.PutUint32(b[20:], uint32(p.count))
	le.PutUint32(b[24:], n.uid)
	le.PutUint32(b[28:], n.gid)
	le.PutUint64(b[32:], uint64(n.seconds))
	le.PutUint32(b[40:], n.nanoseconds)
	le.PutUint32(b[44:], n.links)
	_, err := p.inodes.Write(b[:])
	return err
}

// place is where the content of a directory or symlink goes: behind the inode,
// or into blocks of its own.
func (p *printer) place(n *inode) *area {
	if n.outside == 0 {
		return p.inodes
	}
	return p.outside
}

// target writes where a symlink leads.
func (p *printer) target(n *inode) error {
	if n.mode&typeMask != typeSymlink {
		return nil
	}
	to := p.place(n)
	if _, err := to.Write(p.names.get(n.content, uint32(n.size))); err != nil {
		return err
	}
	if to == p.outside {
		return to.pad(blockSize)
	}
	return nil
}

// directory writes the names in a directory.
func (p *printer) directory(dir Entry, n *inode, parent uint32) error {
	to, packed := p.place(n), packer{}
	for name, e := range p.dirents(dir) {
		if packed.add(len(name)) {
			if err := p.printBlock(to); err != nil {
				return err
			}
			if err := to.pad(blockSize); err != nil {
				return err
			}
		}
		d := dirent{name, n.number, direntKinds[typeDir]}
		switch {
		case e != 0:
			d.number, d.kind = p.inodeOf(e).number, direntKinds[p.inodeOf(e).mode&typeMask]
		case name == "..":
			d.number = parent
		}
		p.block = append(p.block, d)
	}
	if err := p.printBlock(to); err != nil {
		return err
	}
	if to == p.outside {
		return to.pad(blockSize)
	}
	return nil
}

// printBlock writes a block of a directory: the entries, then their names.
func (p *printer) printBlock(to *area) error {
	buf := make([]byte, direntSize*len(p.block), blockSize)
	for i, d := range p.block {
		b := buf[i*direntSize:]
		binary.LittleEndian.PutUint32(b, d.number)
		binary.LittleEndian.PutUint16(b[8:], uint16(len(buf)))
		b[10] = d.kind
		buf = append(buf, d.name...)
	}
	p.block = p.block[:0]
	_, err := to.Write(buf)
	return err
}

// superblock is the file's first block.
func superblock(root uint32, inodes uint64, meta, blocks int64) []byte {
	b := make([]byte, blockSize)
	s := b[superOffset:]
	le := binary.LittleEndian
	le.PutUint32(s[0:], superMagic)
	le.PutUint32(s[8:], featureCRC|featureMtime)
	s[12] = 12 // the block size is 1<<12
	le.PutUint16(s[14:], uint16(root))
	le.PutUint64(s[16:], inodes)
	le.PutUint32(s[36:], uint32(blocks))
	le.PutUint32(s[40:], uint32(meta))
	// The time of making and the UUID stay zero: the same tree is the same file.
	le.PutUint32(s[4:], ^crc32.Checksum(s, crc32.MakeTable(crc32.Castagnoli)))
	return b
}
