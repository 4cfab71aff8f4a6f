package runtime_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/runtime"
	"github.com/innerdock/innerdock/pkg/runtime/runtimetest"
)

func TestCheckVersion(t *testing.T) {
	for _, good := range []string{
		"release-20260817.0", "release-20260817", "release-20261116.0", "v0.0.0-20260905035102-160fafc42237", "v0.0.1-0.20260817000000-160fafc42237",
	} {
		if err := runtime.CheckVersion(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"release-20260816.0", "release-20250101.0", "v0.0.0-20260816235959-160fafc42237", // too old
		"", "VERSION_MISSING", "1.2.3", "release-20269999.0", "release-2026081", "v0.0.0-20260905035102-160fafc42237-dirty",
		"0-release-20261116.0", "release-99999999.0", "release-20261116-custom",
	} {
		err := runtime.CheckVersion(bad)
		if !errors.Is(err, runtime.ErrVersion) || innerdock.CodeOf(err) != innerdock.CodeUnsupported {
			t.Errorf("%q: %v; want ErrVersion of code unsupported", bad, err)
		} else if !strings.Contains(err.Error(), "CVE-2026-96812") && bad != "release-20269999.0" && bad != "release-99999999.0" {
			t.Errorf("%q: the message %q does not say why", bad, err)
		} else if !strings.Contains(err.Error(), "make runsc") {
			t.Errorf("%q: the message %q names no fix", bad, err)
		}
	}
}

// script is a stand-in for runsc that does what the shell commands say.
func script(t *testing.T, commands string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "runsc")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+commands+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

const goodVersion = `case "$*" in *--version*) echo runsc version release-20261116.0; exit;; esac` + "\n"

func TestNewRunscRefuses(t *testing.T) {
	root := t.TempDir()
	for name, c := range map[string]struct {
		path string
		code innerdock.Code
	}{
		"an old runsc":        {script(t, "echo runsc version release-20260101.0; echo spec: 1.1.0"), innerdock.CodeUnsupported},
		"an unstamped runsc":  {script(t, "echo runsc version VERSION_MISSING"), innerdock.CodeUnsupported},
		"a runsc that fails":  {script(t, "echo broken >&2; exit 3"), innerdock.CodeUnavailable},
		"no runsc":            {root + "/runsc", innerdock.CodeUnavailable},
		"a relative path":     {"runsc", innerdock.CodeInvalid},
		"an endless answer":   {script(t, "yes"), innerdock.CodeUnavailable},
		"an answer of no use": {script(t, "head -c 100000 /dev/zero"), innerdock.CodeUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := runtime.NewRunsc(t.Context(), runtime.RunscConfig{Path: c.path, Root: root}); innerdock.CodeOf(err) != c.code {
				t.Errorf("%v; want an error of code %s", err, c.code)
			}
		})
	}
}

func TestVersionOfThePinnedOne(t *testing.T) {
	r, err := runtime.NewRunsc(t.Context(), runtime.RunscConfig{Path: runtimetest.Runsc(t), Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if dir := filepath.Base(filepath.Dir(runtimetest.Runsc(t))); r.Version() == "" || !strings.HasPrefix(dir, r.Version()+"-") {
		t.Errorf("the version is %s; want that of %s, which has the recipe behind it", r.Version(), dir)
	}
}

// What runsc says reaches the error: by its log at creation, by its standard
// error otherwise. An error that only looks like another is not taken for it.
func TestMessagesOfRunsc(t *testing.T) {
	dir := t.TempDir()
	r, err := runtime.NewRunsc(t.Context(), runtime.RunscConfig{Root: dir + "/runsc", Path: script(t, goodVersion+`
		for a; do case $a in --log=*) echo '{"msg":"no space for it","level":"error"}' > "${a#--log=}";; esac; done
		echo 'the file does not exist, and it is a pity' >&2; exit 128`)})
	if err != nil {
		t.Fatal(err)
	}
	s := runtimetest.NewSpec(t, dir, dir+"/root.erofs", "sleep")
	if err := r.Start(t.Context(), s.ID); errors.Is(err, runtime.ErrNotFound) || !strings.Contains(err.Error(), "a pity") {
		t.Errorf("an unknown error became %v", err)
	}
	if _, err := r.Create(t.Context(), s); innerdock.CodeOf(err) != innerdock.CodeInternal || !strings.Contains(err.Error(), "no space for it") {
		t.Errorf("a failed creation became %v", err)
	}
}
