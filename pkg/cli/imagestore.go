package cli

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/spf13/pflag"

	"github.com/innerdock/innerdock"
)

// imageStoreFlags are those of `innerdock server` that speak of images.
type imageStoreFlags struct {
	maxAge  time.Duration
	maxSize string
	mirrors []string
}

func (i *imageStoreFlags) add(f *pflag.FlagSet) {
	f.DurationVar(&i.maxAge, "image-max-age", 30*24*time.Hour, "how long images that no sandbox uses are kept; 0: for ever")
	f.StringVar(&i.maxSize, "image-max-size", "", "how much images may take before the least recently used go (default: any amount)")
	f.StringArrayVar(&i.mirrors, "image-mirror", nil, "REGISTRY=URL: a mirror that is asked before a registry for images, such as docker.io=https://mirror.example.com (repeatable)")
}

// config checks the flags, and reads the accounts that the environment names.
func (i *imageStoreFlags) config(a *app, cfg *serverConfig) (err error) {
	if i.maxAge < 0 {
		return usage("--image-max-age %s: write a time such as 720h", i.maxAge)
	}
	cfg.Prune.UnusedFor = i.maxAge.Seconds()
	if i.maxSize != "" {
		if cfg.Prune.Keep, err = innerdock.ParseQuantity("--image-max-size", i.maxSize); err != nil {
			return err
		}
	}
	cfg.Mirrors = map[string][]name.Registry{}
	for _, text := range i.mirrors {
		of, mirror, err := parseMirror(text)
		if err != nil {
			return usage("--image-mirror %s: write it like docker.io=https://mirror.example.com", text)
		}
		cfg.Mirrors[of.RegistryStr()] = append(cfg.Mirrors[of.RegistryStr()], mirror)
	}
	cfg.Keychain, err = a.keychain()
	return err
}

// keychain has the accounts of Docker's configuration, and first those that the
// environment names.
func (a *app) keychain() (authn.Keychain, error) {
	text := a.Getenv("DOCKER_AUTH_CONFIG")
	if text == "" {
		return authn.DefaultKeychain, nil
	}
	named, err := parseAccounts(text)
	if err != nil {
		return nil, usage("the environment variable DOCKER_AUTH_CONFIG is not of the form of Docker's config.json")
	}
	return authn.NewMultiKeychain(named, authn.DefaultKeychain), nil
}

func parseMirror(text string) (of, mirror name.Registry, err error) {
	key, value, _ := strings.Cut(text, "=")
	if of, err = name.NewRegistry(key); err != nil || key == "" {
		return of, mirror, innerdock.Errorf(innerdock.CodeInvalid, "no registry")
	}
	base, err := url.Parse(value)
	if err != nil || base.Host == "" || base.Scheme != "https" && base.Scheme != "http" || strings.Trim(base.Path, "/") != "" || base.User != nil {
		return of, mirror, innerdock.Errorf(innerdock.CodeInvalid, "no URL")
	}
	var options []name.Option
	if base.Scheme == "http" {
		options = append(options, name.Insecure)
	}
	mirror, err = name.NewRegistry(base.Host, options...)
	return of, mirror, err
}

// accounts are those of a config.json, by registry.
type accounts map[string]authn.AuthConfig

// parseAccounts reads the accounts of a config.json, which may be whole strings
// "auth" or names and passwords.
func parseAccounts(text string) (accounts, error) {
	var file struct {
		Auths map[string]struct {
			authn.AuthConfig
			Auth string `json:"auth"`
		} `json:"auths"`
	}
	if err := json.Unmarshal([]byte(text), &file); err != nil {
		return nil, err
	}
	all := accounts{}
	for key, entry := range file.Auths {
		account := entry.AuthConfig
		if entry.Auth != "" {
			pair, err := base64.StdEncoding.DecodeString(entry.Auth)
			if err != nil {
				return nil, err
			}
			account.Username, account.Password, _ = strings.Cut(string(pair), ":")
		}
		all[registryKey(key)] = account
	}
	return all, nil
}

// registryKey makes one name of those that config.json has for a registry.
func registryKey(key string) string {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	key, _, _ = strings.Cut(key, "/")
	if registry, err := name.NewRegistry(key); err == nil {
		return registry.RegistryStr()
	}
	return key
}

// Resolve implements authn.Keychain.
func (a accounts) Resolve(target authn.Resource) (authn.Authenticator, error) {
	account, ok := a[target.RegistryStr()]
	if !ok {
		return authn.Anonymous, nil
	}
	return authn.FromConfig(account), nil
}
