package imagetest

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/innerdock/innerdock/pkg/image"
	"github.com/innerdock/innerdock/pkg/image/upper"
)

// LocalRunner runs steps on the host, with the host's programs, in a copy of
// the root: the steps of a test must use relative paths. What they changed it
// writes as runsc would, and converts it as the real runner does.
type LocalRunner struct {
	Dir string // for the copies

	mu    sync.Mutex
	roots map[string]string // extracted EROFS files
}

var _ image.Runner = (*LocalRunner)(nil)

// lower returns the content of root, extracted once.
func (r *LocalRunner) lower(root string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if dir, ok := r.roots[root]; ok {
		return dir, nil
	}
	dir, err := os.MkdirTemp(r.Dir, "root-")
	if err != nil {
		return "", err
	}
	if err := extract(root, filepath.Join(dir, "tree")); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	if r.roots == nil {
		r.roots = map[string]string{}
	}
	r.roots[root] = filepath.Join(dir, "tree")
	return r.roots[root], nil
}

// RunSteps implements image.Runner.
func (r *LocalRunner) RunSteps(ctx context.Context, _, root string, env map[string]string, steps []image.Step,
	output func(int, string), layer io.Writer,
) (err error) {
	dir, err := os.MkdirTemp(r.Dir, "runner-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	lower, err := r.lower(root)
	if err != nil {
		return err
	}
	changed := filepath.Join(dir, "changed")
	if out, err := exec.CommandContext(ctx, "cp", "-a", lower, changed).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	for i, step := range steps {
		if err := runStep(ctx, changed, env, i, step, output); err != nil {
			return err
		}
	}
	pr, pw := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := writeUpper(pw, lower, changed)
		written <- errors.Join(err, pw.CloseWithError(err))
	}()
	err = upper.ToLayer(pr, layer)
	return errors.Join(err, pr.CloseWithError(err), <-written)
}

func runStep(ctx context.Context, dir string, env map[string]string, i int, step image.Step, output func(int, string)) error {
	// env finds the program in the step's PATH, not in that of the tests.
	cmd := exec.CommandContext(ctx, "/usr/bin/env", step.Args...)
	cmd.Dir = dir
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewReaderSize(pipe, 4096)
	for {
		line, _, err := lines.ReadLine()
		if err != nil {
			break
		}
		output(i, string(line))
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &exit):
		status := exit.Sys().(syscall.WaitStatus)
		if status.Signaled() {
			return &image.StepError{Step: i, ExitCode: 128 + int(status.Signal())}
		}
		return &image.StepError{Step: i, ExitCode: status.ExitStatus()}
	}
	return err
}

// writeUpper writes what makes changed differ from lower as an overlay's upper
// directory, in the form of runsc tar rootfs-upper.
func writeUpper(w io.Writer, lower, changed string) error {
	u := upperWriter{tw: tar.NewWriter(w), lower: lower, changed: changed, names: map[uint64]string{}}
	if err := filepath.WalkDir(changed, u.visit); err != nil {
		return err
	}
	if err := filepath.WalkDir(lower, u.visitLower); err != nil {
		return err
	}
	return u.tw.Close()
}

type upperWriter struct {
	tw             *tar.Writer
	lower, changed string
	names          map[uint64]string // of inodes already written
	whiteout       string            // the first deleted file
}

func (u *upperWriter) visit(path string, _ fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	rel := strings.TrimPrefix(strings.TrimPrefix(path, u.changed), "/")
	before, err := os.Lstat(filepath.Join(u.lower, rel))
	existed := err == nil
	if existed && same(before, info) {
		return nil
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(path); err != nil {
			return err
		}
	}
	hdr, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	hdr.Name = "./" + rel
	hdr.Format = tar.FormatPAX
	if info.IsDir() {
		hdr.Name += "/"
		if !existed || !before.IsDir() {
			hdr.PAXRecords = map[string]string{"SCHILY.xattr.trusted.overlay.opaque": "y"}
		}
		return u.tw.WriteHeader(hdr)
	}
	return u.file(hdr, path, info)
}

func (u *upperWriter) file(hdr *tar.Header, path string, info fs.FileInfo) error {
	ino := info.Sys().(*syscall.Stat_t).Ino
	if first, ok := u.names[ino]; ok {
		hdr.Typeflag, hdr.Linkname, hdr.Size = tar.TypeLink, first, 0
		return u.tw.WriteHeader(hdr)
	}
	u.names[ino] = hdr.Name
	if err := u.tw.WriteHeader(hdr); err != nil {
		return err
	}
	if hdr.Typeflag != tar.TypeReg {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(u.tw, f)
	return errors.Join(err, f.Close())
}

// visitLower writes the whiteouts.
func (u *upperWriter) visitLower(path string, _ fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	rel := strings.TrimPrefix(path, u.lower)
	if _, err := os.Lstat(u.changed + rel); err == nil {
		return nil
	}
	parent, err := os.Lstat(filepath.Dir(u.changed + rel))
	if err != nil || !parent.IsDir() {
		return nil // hidden with its directory
	}
	hdr := &tar.Header{Typeflag: tar.TypeChar, Name: "." + rel, Format: tar.FormatPAX}
	if u.whiteout == "" {
		u.whiteout = hdr.Name
	} else {
		hdr.Typeflag, hdr.Linkname = tar.TypeLink, u.whiteout
	}
	if err := u.tw.WriteHeader(hdr); err != nil {
		return fmt.Errorf("whiteout of %s: %w", rel, err)
	}
	return nil
}

// same reports whether two files are alike as far as stat tells; directories
// have no content of their own.
func same(a, b fs.FileInfo) bool {
	x, y := a.Sys().(*syscall.Stat_t), b.Sys().(*syscall.Stat_t)
	if a.Mode() != b.Mode() || x.Uid != y.Uid || x.Gid != y.Gid {
		return false
	}
	return a.IsDir() || a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && x.Nlink == y.Nlink
}
