// Package agentbin holds the agent's binary, which the server carries in itself
// and lays out for its sandboxes.
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

const name = "innerdock-agent"

// Install writes the agent below dir, in a directory named after its content
// that is never rewritten (checkpoints refer to it), and returns that directory.
func Install(dir string) (string, error) {
	binary, err := files.ReadFile(name)
	if err != nil {
		return "", innerdock.Errorf(innerdock.CodeUnsupported,
			"this innerdock was built without its agent; build it with `make build`")
	}
	sum := sha256.Sum256(binary)
	target := filepath.Join(dir, hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(filepath.Join(target, name)); err == nil {
		return target, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", innerdock.Internal(err, "installing the agent")
	}
	temp, err := os.MkdirTemp(dir, ".new-")
	if err != nil {
		return "", innerdock.Internal(err, "installing the agent")
	}
	defer func() { _ = os.RemoveAll(temp) }()
	if err := os.WriteFile(filepath.Join(temp, name), binary, 0o755); err != nil {
		return "", innerdock.Internal(err, "installing the agent")
	}
	if err := os.Chmod(temp, 0o755); err != nil {
		return "", innerdock.Internal(err, "installing the agent")
	}
	if err := os.Rename(temp, target); err != nil {
		return "", innerdock.Internal(err, "installing the agent")
	}
	return target, nil
}
