// Package durable puts files where a power cut finds them whole or not at all:
// they are written under another name, brought to the disk, and renamed.
package durable

import (
	"errors"
	"os"
	"path/filepath"
)

// Sync brings a file's content, or a directory's list of names, to the disk.
func Sync(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// SyncTree brings a directory and the files in it to the disk.
func SyncTree(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		err = errors.Join(err, Sync(filepath.Join(dir, entry.Name())))
	}
	return errors.Join(err, Sync(dir))
}

// Publish gives what is on the disk already the name by which it is found.
func Publish(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return Sync(filepath.Dir(to))
}

// Draft is where what is to be dir/name is made, beside it.
func Draft(dir, name string) string { return filepath.Join(dir, ".making-"+name) }

// Sweep removes what is in a directory and not to be kept, such as what somebody
// who was killed had not published yet.
func Sweep(dir string, keep func(name string) bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !keep(entry.Name()) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, entry.Name())))
		}
	}
	return err
}
