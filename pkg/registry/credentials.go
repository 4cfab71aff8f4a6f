package registry

import (
	"encoding/json"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/innerdock/innerdock"
)

// credentials are those of a file as `docker login` writes it, by host.
type credentials map[string]authn.AuthConfig

// hubNames are what such files call Docker Hub.
var hubNames = []string{"index.docker.io", "docker.io", "registry-1.docker.io"}

// ReadCredentials reads the accounts that the cache uses upstream from a file in
// the form of Docker's config.json. Errors: CodeInvalid, also for a file that
// others may read.
func ReadCredentials(path string) (authn.Keychain, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, innerdock.Errorf(innerdock.CodeInvalid, "the registry credentials cannot be read: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, innerdock.Errorf(innerdock.CodeInvalid, "others may read the registry credentials in %s; run `chmod 600 %s`", path, path)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, innerdock.Errorf(innerdock.CodeInvalid, "the registry credentials cannot be read: %w", err)
	}
	var file struct {
		Auths map[string]authn.AuthConfig `json:"auths"`
	}
	if err := json.Unmarshal(raw, &file); err != nil || len(file.Auths) == 0 {
		return nil, innerdock.Errorf(innerdock.CodeInvalid,
			`%s holds no registry credentials; write {"auths": {"HOST": {"username": "…", "password": "…"}}}, as docker login does`, path)
	}
	found := credentials{}
	for key, auth := range file.Auths {
		found[hostOf(key)] = auth
	}
	for _, name := range hubNames {
		if auth, ok := found[name]; ok {
			for _, other := range hubNames {
				found[other] = auth
			}
			break
		}
	}
	return found, nil
}

// hostOf is the host in a key of the file, such as https://index.docker.io/v1/.
func hostOf(key string) string {
	if _, rest, ok := strings.Cut(key, "://"); ok {
		key = rest
	}
	host, _, _ := strings.Cut(key, "/")
	return host
}

// Resolve implements authn.Keychain.
func (c credentials) Resolve(resource authn.Resource) (authn.Authenticator, error) {
	auth, ok := c[resource.RegistryStr()]
	if !ok {
		return authn.Anonymous, nil
	}
	return authn.FromConfig(auth), nil
}
