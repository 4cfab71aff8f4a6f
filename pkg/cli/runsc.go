package cli

import (
	"os"
	"os/exec"
	"path/filepath"

	"github.com/innerdock/innerdock"
)

// findRunsc is the path of runsc: the one that was asked for, the newest that
// was built into the cache, or the one in PATH.
func (a *app) findRunsc(asked string) (string, error) {
	if asked != "" {
		path, err := exec.LookPath(asked)
		if err != nil {
			return "", usage("--runsc %s: %w", asked, err)
		}
		return filepath.Abs(path)
	}
	built, _ := filepath.Glob(filepath.Join(a.cacheDir(), "runsc", "*", "runsc")) // the pattern is well-formed
	newest, newestTime := "", int64(0)
	for _, path := range built {
		if info, err := os.Stat(path); err == nil && info.ModTime().UnixNano() > newestTime {
			newest, newestTime = path, info.ModTime().UnixNano()
		}
	}
	if newest != "" {
		return newest, nil
	}
	path, err := exec.LookPath("runsc")
	if err != nil {
		return "", innerdock.Errorf(innerdock.CodeNotFound,
			"runsc is neither in %s nor in PATH; build it with `make build`, or say where it is with --runsc", a.cacheDir())
	}
	return filepath.Abs(path)
}

// cacheDir holds what is built once for a machine and its user.
func (a *app) cacheDir() string {
	if dir := a.Getenv("INNERDOCK_CACHE"); dir != "" {
		return dir
	}
	return filepath.Join(a.Getenv("HOME"), ".cache", "innerdock")
}
