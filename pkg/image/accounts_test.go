package image

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/innerdock/innerdock"
)

// One account is for the registry of the bases, and those of several are named.
func TestAccountsOfADockerfile(t *testing.T) {
	me := innerdock.RegistryCredentials{Username: "me", Password: "p\nw:ü"}
	for name, tc := range map[string]struct {
		text       string
		one        *innerdock.RegistryCredentials
		registries map[string]innerdock.RegistryCredentials
		want       []string // registries in config.json; none: the definition is refused
	}{
		"of the one registry":        {"FROM --platform=$X reg.example.com:5000/a AS b\nFROM b\nFROM scratch\n", &me, nil, []string{"reg.example.com:5000"}},
		"of the one that is not Hub": {"FROM golang AS build\nfrom reg.example.com/a@sha256:" + strings.Repeat("0", 64) + "\n", &me, nil, []string{"reg.example.com"}},
		"of Docker Hub":              {"FROM me/private\n", &me, nil, []string{"https://index.docker.io/v1/"}},
		"of one of two":              {"FROM a.example.com/a\nFROM b.example.com/b\n", &me, nil, nil},
		"of an argument":             {"ARG R\nFROM $R/a\n", &me, nil, nil},
		"by name":                    {"ARG R\nFROM $R/a\n", nil, map[string]innerdock.RegistryCredentials{"docker.io": me, "b.example.com": me}, []string{"b.example.com", "https://index.docker.io/v1/"}},
		"both":                       {"FROM a.example.com/a\n", &me, map[string]innerdock.RegistryCredentials{"b.example.com": me}, []string{"a.example.com", "b.example.com"}},
		"twice":                      {"FROM a.example.com/a\n", &me, map[string]innerdock.RegistryCredentials{"a.example.com": me}, nil},
	} {
		def := ofDockerfile(tc.text)
		def.Credentials, def.Registries = tc.one, tc.registries
		p, err := newPlan(def)
		if tc.want == nil {
			if innerdock.CodeOf(err) != innerdock.CodeInvalid {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		config, err := p.accounts.config()
		want := make([]string, len(tc.want))
		for i, host := range tc.want {
			want[i] = fmt.Sprintf("%q:{%s}", host, `"auth":"bWU6cAp3OsO8"`)
		}
		if err != nil || string(config) != `{"auths":{`+strings.Join(want, ",")+"}}" {
			t.Errorf("%s: %s, %v", name, config, err)
		}
		if said := fmt.Sprintf("%v %+v %#v", p.accounts, p.accounts, p.def.Registries); strings.Contains(said, "p\nw") || strings.Contains(said, `p\nw`) {
			t.Errorf("%s: it prints itself as %s", name, said)
		}
	}
	p, err := newPlan(innerdock.ImageDefinition{BaseImage: "reg.example.com/a", Credentials: &me})
	if err != nil || p.accounts["reg.example.com"] != me {
		t.Errorf("a base's account is %v, %v", p.accounts, err)
	}
	if _, err := newPlan(innerdock.ImageDefinition{BaseImage: "a", Registries: map[string]innerdock.RegistryCredentials{"b.example.com": me}}); innerdock.CodeOf(err) != innerdock.CodeInvalid {
		t.Errorf("a base image with accounts by registry: %v", err)
	}
	if got := Registries("FROM a/b\nFROM A/B\nFROM ghcr.io/a/b AS x\nFROM X\n"); !slices.Equal(got, []string{"index.docker.io", "ghcr.io"}) {
		t.Errorf("the registries are %q", got)
	}
}
