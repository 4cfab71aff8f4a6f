// Package agentbin holds the agent's binary and that of its runc, which the server
// carries in itself and lays out for its sandboxes.
package agentbin

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"os"
	"path/filepath"

	"github.com/innerdock/innerdock"
)

//go:embed *
var files embed.FS

var names = []string{"innerdock-agent", "innerdock-runc"}

// Install writes the programs below dir, in a directory named after their content
// that is never rewritten (checkpoints refer to it), and returns that directory.
func Install(dir string) (string, error) {
	sum := sha256.New()
	programs := map[string][]byte{}
	for _, name := range names {
		binary, err := files.ReadFile(name)
		if err != nil {
			return "", innerdock.Errorf(innerdock.CodeUnsupported,
				"this innerdock was built without its agent; build it with `make build`")
		}
		programs[name] = binary
		_, _ = sum.Write(binary)
	}
	target := filepath.Join(dir, hex.EncodeToString(sum.Sum(nil)[:8]))
	if _, err := os.Stat(target); err == nil {
		return target, nil
	}
	if err := lay(dir, target, programs); err != nil {
		return "", innerdock.Internal(err, "installing the agent")
	}
	return target, nil
}

// lay writes the programs to target, which is there afterwards with all of them
// or not at all.
func lay(dir, target string, programs map[string][]byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(dir, ".new-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(temp) }()
	for name, binary := range programs {
		if err := os.WriteFile(filepath.Join(temp, name), binary, 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(temp, 0o755); err != nil {
		return err
	}
	return os.Rename(temp, target)
}
