package process

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/innerdock/innerdock"
)

// Lookup finds the program name as a shell would: by the PATH in env, relative
// to dir. The result is absolute.
func Lookup(name, dir string, env []string) (string, error) {
	if strings.ContainsRune(name, '/') {
		path := absolute(dir, name)
		return path, executable(path)
	}
	var found error
	for _, entry := range filepath.SplitList(variable(env, "PATH")) {
		path := absolute(dir, filepath.Join(entry, name))
		err := executable(path)
		if err == nil {
			return path, nil
		}
		if innerdock.CodeOf(err) == innerdock.CodeInvalid && found == nil {
			found = err
		}
	}
	if found != nil {
		return "", found
	}
	return "", innerdock.Errorf(innerdock.CodeCommandNotFound,
		"%q was not found in the sandbox's PATH; install it in the image, or name it by its full path", name)
}

func absolute(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// executable reports what keeps path from being run.
func executable(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return innerdock.Errorf(innerdock.CodeCommandNotFound, "%s does not exist in the sandbox", path)
	case err != nil:
		return innerdock.Errorf(innerdock.CodeInvalid, "%s cannot be run: %w", path, err)
	case info.IsDir():
		return innerdock.Errorf(innerdock.CodeInvalid, "%s is a directory, not a program", path)
	case info.Mode()&0o111 == 0:
		return innerdock.Errorf(innerdock.CodeInvalid, "%s is not executable (mode %04o); chmod +x it", path, info.Mode().Perm())
	}
	return nil
}

func variable(env []string, name string) string {
	for _, e := range env {
		if k, v, _ := strings.Cut(e, "="); k == name {
			return v
		}
	}
	return ""
}

// directory checks a working directory.
func directory(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return innerdock.Errorf(innerdock.CodeInvalid, "the working directory %s does not exist in the sandbox", dir)
	case err != nil:
		return innerdock.Errorf(innerdock.CodeInvalid, "the working directory %s cannot be used: %w", dir, err)
	case !info.IsDir():
		return innerdock.Errorf(innerdock.CodeInvalid, "the working directory %s is not a directory", dir)
	}
	return nil
}

// startError says why the kernel did not start a program that Lookup found.
func startError(c Command, err error) error {
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		return innerdock.Errorf(innerdock.CodeInvalid, "%s is not a program for this machine, nor a script that begins with #!", c.Path)
	case errors.Is(err, syscall.ENOENT):
		return innerdock.Errorf(innerdock.CodeInvalid, "%s needs an interpreter or a loader that is not in the sandbox", c.Path)
	case errors.Is(err, syscall.EACCES) && c.User != nil:
		return innerdock.Errorf(innerdock.CodeInvalid, "user %d may not run %s, or not enter %s; run it as another user, or change their permissions", c.User.UID, c.Path, c.Dir)
	case errors.Is(err, syscall.E2BIG):
		return innerdock.Errorf(innerdock.CodeTooLarge, "the arguments and the environment are too long for the kernel")
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM):
		return innerdock.Errorf(innerdock.CodeExhausted, "the sandbox has no room for another process: %w", err)
	case errors.Is(err, syscall.EINVAL):
		return innerdock.Errorf(innerdock.CodeInvalid, "the arguments or the environment hold a zero byte")
	}
	return innerdock.Errorf(innerdock.CodeInvalid, "%s cannot be run: %w", c.Path, err)
}
