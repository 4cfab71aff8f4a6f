package worker

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"strings"
)

// A sandbox's ID is prefixLength characters that name its server and
// randomLength random ones, of the alphabet [a-z2-7]. The length is fixed,
// because runsc matches prefixes, and short enough for a network interface's
// name (15 bytes) to hold it.
const (
	prefixLength = 4
	randomLength = 8
)

// Prefix names the server of a data directory: what stands first in the IDs of
// its sandboxes, and so in the names of all their resources.
func Prefix(data string) string {
	sum := sha256.Sum256([]byte(data))
	return encode(sum[:])[:prefixLength]
}

func newID(prefix string) string {
	random := make([]byte, randomLength*5/8)
	_, _ = rand.Read(random) // never fails: see crypto/rand
	return prefix + encode(random)
}

func encode(b []byte) string {
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))
}

// machineID is what a sandbox has in /etc/machine-id: its own, for as long as
// the sandbox is the same.
func machineID(sandbox string) string {
	sum := sha256.Sum256([]byte("machine " + sandbox))
	return hex.EncodeToString(sum[:16])
}
