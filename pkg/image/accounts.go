package image

import (
	"encoding/base64"
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/innerdock/innerdock"
)

// maxAccounts is how many registries a build may have accounts at.
const maxAccounts = 64

// accounts are those that BuildKit has for a build, by the names of registries such
// as index.docker.io.
type accounts map[string]innerdock.RegistryCredentials

// accountsOf are the accounts that come with a definition. base is nil for that of
// a Dockerfile: its one account is for the registry that its bases come from.
func accountsOf(def innerdock.ImageDefinition, base name.Reference) (accounts, error) {
	all := accounts{}
	if len(def.Registries) > maxAccounts {
		return nil, innerdock.Errorf(innerdock.CodeInvalid, "registry_credentials has %d accounts; at most %d come with a build", len(def.Registries), maxAccounts)
	}
	for key, account := range def.Registries {
		registry, err := name.NewRegistry(key)
		switch {
		case base != nil:
			return nil, innerdock.Errorf(innerdock.CodeInvalid, "registry_credentials are for a dockerfile's bases; that of base_image is credentials")
		case err != nil || key == "":
			return nil, innerdock.Errorf(innerdock.CodeInvalid, "registry_credentials: %q is no registry; write it like registry.example.com or docker.io", clip(key))
		case authenticator(&account) == nil:
			return nil, innerdock.Errorf(innerdock.CodeInvalid, "registry_credentials: the account at %s is empty; give its username and password", clip(key))
		}
		all[registry.RegistryStr()] = account
	}
	if authenticator(def.Credentials) == nil {
		return all, nil
	}
	if base != nil {
		all[base.Context().RegistryStr()] = *def.Credentials
		return all, nil
	}
	registry, ok := registryOf(Registries(def.Dockerfile.Text))
	if !ok {
		return nil, innerdock.Errorf(innerdock.CodeInvalid, "credentials: the dockerfile does not tell which registry they are for; give them by registry, in registry_credentials")
	}
	if _, twice := all[registry]; twice {
		return nil, innerdock.Errorf(innerdock.CodeInvalid, "credentials and registry_credentials both have an account at %s; leave one out", registry)
	}
	all[registry] = *def.Credentials
	return all, nil
}

// registryOf is the one registry of several that an account is meant for. Many a
// base comes from Docker Hub, and is public: it is meant if there is no other.
func registryOf(registries []string) (string, bool) {
	if len(registries) > 1 {
		registries = slices.DeleteFunc(slices.Clone(registries), func(r string) bool { return r == name.DefaultRegistry })
	}
	if len(registries) != 1 {
		return "", false
	}
	return registries[0], true
}

// fromLine is an instruction FROM with its reference, and with its stage's name if it has one.
var fromLine = regexp.MustCompile(`(?mi)^[ \t]*FROM[ \t]+(?:--\S+[ \t]+)*(\S+)(?:[ \t]+AS[ \t]+(\S+))?`)

// Registries are those that the bases of a Dockerfile come from, each once, by names
// such as index.docker.io. What a reference takes from ARG is not known, and such
// bases are left out.
func Registries(dockerfile string) []string {
	var registries []string
	stages := map[string]bool{"scratch": true}
	for _, from := range fromLine.FindAllStringSubmatch(dockerfile, -1) {
		ref, err := name.ParseReference(from[1])
		if err == nil && !stages[strings.ToLower(from[1])] && !slices.Contains(registries, ref.Context().RegistryStr()) {
			registries = append(registries, ref.Context().RegistryStr())
		}
		stages[strings.ToLower(from[2])] = true
	}
	return registries
}

// config is Docker's config.json; nil without an account.
func (a accounts) config() ([]byte, error) {
	if len(a) == 0 {
		return nil, nil
	}
	type entry struct {
		Auth string `json:"auth"`
	}
	auths := map[string]entry{}
	for host, account := range a {
		if host == name.DefaultRegistry {
			host = "https://index.docker.io/v1/"
		}
		auths[host] = entry{base64.StdEncoding.EncodeToString([]byte(account.Username + ":" + account.Password))}
	}
	data, err := json.Marshal(map[string]any{"auths": auths})
	if err != nil {
		return nil, innerdock.Internal(err, "describing accounts")
	}
	return data, nil
}
