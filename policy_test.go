package innerdock_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/innerdock/innerdock"

// layers says what each package of the module may import from the module:
// itself and what is below it, the root, and these. A package takes the rule of
// the longest prefix. Tests, and packages for tests (runtimetest), are free:
// they put real parts together.
var layers = map[string][]string{
	".":                   {"pkg/tunnel"},
	"cmd/innerdock":       {"pkg/cli"},
	"pkg/cli":             {"pkg/buildcontext", "pkg/doctor", "pkg/forward", "pkg/image", "pkg/network", "pkg/registry", "pkg/runtime", "pkg/server", "pkg/store", "pkg/worker"},
	"pkg/server":          {"pkg/forward", "pkg/tunnel"},
	"pkg/forward":         {"pkg/tunnel"},
	"pkg/tunnel":          {},
	"pkg/worker":          {"pkg/agent/wire", "pkg/ctxio", "pkg/durable", "pkg/image", "pkg/network", "pkg/registry", "pkg/runtime", "pkg/store"},
	"pkg/buildcontext":    {},
	"pkg/doctor":          {"pkg/network", "pkg/runtime"},
	"pkg/runtime":         {"pkg/durable"},
	"pkg/network":         {},
	"pkg/image":           {"pkg/ctxio", "pkg/durable"},
	"pkg/registry":        {"pkg/image/child", "pkg/image/debian"},
	"pkg/store":           {},
	"pkg/ctxio":           {},
	"pkg/durable":         {},
	"cmd/innerdock-agent": {"pkg/agent"},
	"cmd/innerdock-runc":  {},
	"pkg/agent":           {"pkg/tunnel"},
	"test":                {"pkg"},
}

// foreign says which modules of others the parts that travel may import.
var foreign = map[string][]string{
	".":                   {},
	"cmd/innerdock-agent": {"golang.org/x/sys"},
	"cmd/innerdock-runc":  {},
	"pkg/agent":           {"golang.org/x/sys", "github.com/hashicorp/yamux", "github.com/vishvananda/netlink", "github.com/vishvananda/netns"},
	"pkg/tunnel":          {"golang.org/x/sys"},
}

// source is a Go file of the module.
type source struct {
	dir  string // slash-separated, from the root
	file string
	test bool
	ast  *ast.File
}

func sources(t *testing.T) []source {
	t.Helper()
	var found []source
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			_, module := os.Stat(filepath.Join(name, "go.mod"))
			hidden := len(name) > 1 && strings.HasPrefix(entry.Name(), ".")
			if hidden || entry.Name() == "testdata" || name != "." && module == nil {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		found = append(found, source{path.Dir(name), name, strings.HasSuffix(name, "_test.go"), file})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestEveryPackageSaysWhatItIs wants a comment on each package.
func TestEveryPackageSaysWhatItIs(t *testing.T) {
	said := map[string]string{}
	for _, src := range sources(t) {
		if !src.test {
			said[src.dir] += src.ast.Doc.Text()
		}
	}
	for dir, doc := range said {
		if doc == "" {
			t.Errorf("%s: no file has a package comment", dir)
		}
	}
}

// TestNoHostOfAPackageRegistry keeps addresses of package registries out of the
// tree: clients bring their own, and users configure mirrors in one place.
func TestNoHostOfAPackageRegistry(t *testing.T) {
	hosts := []string{"deb.debian" + ".org", "pypi" + ".org", "pythonhosted" + ".org", "proxy.golang" + ".org",
		"sum.golang" + ".org", "npmjs" + ".org", "crates" + ".io", "maven.apache" + ".org"}
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (name == "bin" || len(name) > 1 && strings.HasPrefix(entry.Name(), ".")) {
			return fs.SkipDir
		}
		if !entry.Type().IsRegular() || filepath.Ext(name) == "" && filepath.Dir(name) == "pkg/worker/agentbin" {
			return nil
		}
		content, err := os.ReadFile(name)
		for _, host := range hosts {
			if bytes.Contains(content, []byte(host)) {
				t.Errorf("%s names %s", name, host)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestImportsPointDownwards keeps the direction that docs/dev/architecture.md draws.
func TestImportsPointDownwards(t *testing.T) {
	for _, src := range sources(t) {
		if src.test || strings.HasSuffix(src.dir, "test") {
			continue
		}
		layer, known := longest(layers, src.dir)
		if !known {
			t.Errorf("%s: %s is in no layer; add it to layers in policy_test.go", src.file, src.dir)
			continue
		}
		for _, spec := range src.ast.Imports {
			imported := strings.Trim(spec.Path.Value, `"`)
			if why := forbidden(layer, src.dir, imported); why != "" {
				t.Errorf("%s imports %s: %s", src.file, imported, why)
			}
		}
	}
}

// forbidden says why a package of the layer in dir may not import another one.
func forbidden(layer, dir, imported string) string {
	inner, ours := strings.CutPrefix(imported, module)
	if !ours {
		first, _, _ := strings.Cut(imported, "/")
		small, bound := longest(foreign, dir)
		if bound && strings.Contains(first, ".") && !below(imported, foreign[small]) {
			return small + " stays small: of others' modules it may import " + strings.Join(foreign[small], ", ")
		}
		return ""
	}
	inner = strings.TrimPrefix(inner, "/")
	if inner == "" || below(inner, []string{layer}) || below(inner, layers[layer]) {
		return ""
	}
	return layer + " may import " + strings.Join(append([]string{"the root"}, layers[layer]...), ", ")
}

// longest finds the key that is dir or the closest directory above it; the root
// is above nothing.
func longest(rules map[string][]string, dir string) (string, bool) {
	for at := dir; at != "." || dir == "."; at = path.Dir(at) {
		if _, found := rules[at]; found {
			return at, true
		}
	}
	return "", false
}

func below(name string, parents []string) bool {
	return slices.ContainsFunc(parents, func(parent string) bool {
		return name == parent || strings.HasPrefix(name, parent+"/")
	})
}
