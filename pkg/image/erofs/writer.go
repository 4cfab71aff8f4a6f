package erofs

import (
	"errors"
	"io"
	"os"
)

// Writer writes one EROFS file.
type Writer struct {
	*tree
	file *os.File
	data *area
}

// New begins a file, which must be empty. The names may use about memory bytes.
func New(file *os.File, memory int64) *Writer {
	return &Writer{tree: newTree(memory), file: file, data: newArea(file, blockSize)}
}

// Create makes a regular file with the next size bytes of content.
func (w *Writer) Create(dir Entry, name string, a Attributes, size int64, content io.Reader) (Entry, error) {
	e, err := w.make(dir, name, typeRegular, a)
	if err != nil {
		return 0, err
	}
	n := w.inodeOf(e)
	n.content, n.size = uint32(w.data.end()/blockSize), size
	if size == 0 {
		return e, nil
	}
	if w.data.end()+size > 1<<32*blockSize/2 {
		return 0, errors.New("the file would be larger than 8 TiB")
	}
	if err := w.data.fill(content, size); err != nil {
		return 0, err
	}
	return e, w.data.pad(blockSize)
}

// Remove removes an entry with all that is below it. Content that has no name
// any more is erased.
func (w *Writer) Remove(e Entry) error {
	if w.IsDir(e) {
		for child := range w.Children(e) {
			if err := w.Remove(child); err != nil {
				return err
			}
		}
	}
	n := w.detach(e)
	if n == nil || n.mode&typeMask != typeRegular {
		return nil
	}
	return w.data.erase(int64(n.content)*blockSize, n.size)
}

// Finish writes the rest of the file. The Writer is of no use afterwards.
func (w *Writer) Finish() error {
	if err := w.data.flush(); err != nil {
		return err
	}
	l := layout{tree: w.tree, blocks: w.data.at / blockSize, next: inodeSize} // number 0 would be no inode
	w.inodeOf(Root).links = 0
	l.place(Root)
	w.heads = nil // of no use any more
	meta := w.data.at + (l.blocks-w.data.at/blockSize)*blockSize
	p := printer{tree: w.tree, meta: meta, outside: newArea(w.file, w.data.at), inodes: newArea(w.file, meta)}
	if err := p.print(Root, w.inodeOf(Root).number); err != nil {
		return err
	}
	if err := errors.Join(p.outside.flush(), p.inodes.pad(blockSize), p.inodes.flush()); err != nil {
		return err
	}
	if err := w.file.Truncate(p.inodes.at); err != nil {
		return err
	}
	_, err := w.file.WriteAt(superblock(w.inodeOf(Root).number, p.count, meta/blockSize, p.inodes.at/blockSize), 0)
	return err
}
