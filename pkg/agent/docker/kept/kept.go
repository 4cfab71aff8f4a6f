// Package kept keeps Docker's images in the root of a sandbox's image, which all
// its sandboxes share and none can change, and lends them to a new Docker.
//
// What is kept looks like Docker's own data with overlay2, but each layer has
// everything in it that is below it, as hard links. So it needs none of overlay2's
// marks for what a layer removes, which no file system of an image has; and its
// files take their room once. Docker's data then has the lists of images, which
// are small, and symlinks to the layers: nothing of these is copied, counted as
// the sandbox's disk, or part of a checkpoint.
package kept

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	lists     = "image/overlay2" // what Docker knows of images and their layers
	layers    = "overlay2"       // their files
	links     = "l"              // in it, short names of layers
	layerList = lists + "/layerdb/sha256"
	// tarSplit is how a layer's archive was, which is as long as its files are many.
	tarSplit = "tar-split.json.gz"
)

// ErrStore means that Docker keeps its images in another way than overlay2.
var ErrStore = errors.New("the image's Docker does not keep its images by overlay2; " +
	`containerd's store is turned off by {"features": {"containerd-snapshotter": false}} in /etc/docker/daemon.json`)

// Keep moves the images of Docker's directory data, which nobody uses, to dir.
func Keep(data, dir string) error {
	if _, err := os.Stat(filepath.Join(data, lists, "repositories.json")); errors.Is(err, fs.ErrNotExist) {
		return ErrStore
	}
	order, err := bottomUp(filepath.Join(data, layerList))
	if err != nil {
		return err
	}
	for _, l := range order {
		from, to := filepath.Join(data, layers, l.name), filepath.Join(dir, layers, l.name)
		if err := os.MkdirAll(to, 0o711); err != nil {
			return err
		}
		if err := copyFile(filepath.Join(from, "link"), filepath.Join(to, "link")); err != nil {
			return err
		}
		below := ""
		if l.parent != "" {
			below = filepath.Join(dir, layers, l.parent, "diff")
		}
		if err := merge(filepath.Join(from, "diff"), below, filepath.Join(to, "diff")); err != nil {
			return fmt.Errorf("keeping layer %s: %w", l.name, err)
		}
	}
	return copyTree(filepath.Join(data, lists), filepath.Join(dir, lists), copyFile)
}

// layer is one of Docker's: its directory and that of the one below it, or "".
type layer struct{ name, parent string }

// bottomUp lists Docker's layers, each after the one below it.
func bottomUp(list string) ([]layer, error) {
	entries, err := os.ReadDir(list)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names, parents := map[string]string{}, map[string]string{}
	for _, e := range entries {
		name, err := os.ReadFile(filepath.Join(list, e.Name(), "cache-id"))
		if err != nil {
			return nil, err
		}
		parent, err := os.ReadFile(filepath.Join(list, e.Name(), "parent"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		names[e.Name()] = strings.TrimSpace(string(name))
		parents[e.Name()] = strings.TrimPrefix(strings.TrimSpace(string(parent)), "sha256:")
	}
	var order []layer
	for done := map[string]bool{"": true}; len(order) < len(names); {
		before := len(order)
		for chain, parent := range parents {
			if !done[chain] && done[parent] {
				done[chain] = true
				order = append(order, layer{names[chain], names[parent]})
			}
		}
		if len(order) == before {
			return nil, errors.New("a layer of Docker is there without the one below it")
		}
	}
	return order, nil
}

// Lend gives the images that are kept in dir to a Docker that is yet to be started
// with the directory data, unless none are, or it has images already.
func Lend(dir, data string) error {
	names, err := os.ReadDir(filepath.Join(dir, layers))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(data, lists)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Join(data, layers, links), 0o710); err != nil {
		return err
	}
	for _, e := range names {
		kept, own := filepath.Join(dir, layers, e.Name()), filepath.Join(data, layers, e.Name())
		link, err := os.ReadFile(filepath.Join(kept, "link"))
		if err != nil {
			return err
		}
		err = os.MkdirAll(own, 0o710)
		for at, target := range map[string]string{
			filepath.Join(own, "diff"):                                      filepath.Join(kept, "diff"),
			filepath.Join(data, layers, links, filepath.Base(string(link))): filepath.Join("..", e.Name(), "diff"),
		} {
			err = errors.Join(err, again(os.Symlink(target, at)))
		}
		if err = errors.Join(err, again(copyFile(filepath.Join(kept, "link"), filepath.Join(own, "link")))); err != nil {
			return err
		}
	}
	// The lists are what Docker goes by, so they come last, and at once.
	temp := filepath.Join(data, lists+".new")
	if err := os.RemoveAll(temp); err != nil {
		return err
	}
	err = copyTree(filepath.Join(dir, lists), temp, func(from, to string) error {
		if filepath.Base(from) == tarSplit {
			return os.Symlink(from, to)
		}
		return copyFile(from, to)
	})
	if err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(data, lists))
}

// again takes it that something is there from a time before.
func again(err error) error {
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// copyTree makes a directory to with what is in from, whose files are made by file.
func copyTree(from, to string, file func(from, to string) error) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rest, err := filepath.Rel(from, path)
		switch {
		case err != nil:
			return err
		case e.IsDir():
			return os.MkdirAll(filepath.Join(to, rest), 0o700)
		case e.Type().IsRegular():
			return file(path, filepath.Join(to, rest))
		}
		return nil
	})
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}
