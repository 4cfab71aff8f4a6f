package e2e

import (
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/registry/registrytest"
)

// TestImagesTravel takes an image to a registry and back, and through an archive,
// with the command line alone, and runs what arrives.
func TestImagesTravel(t *testing.T) {
	hub := httptest.NewServer(registrytest.New(t))
	defer hub.Close()
	ref := strings.TrimPrefix(hub.URL, "http://") + "/team/app:1"
	built := shared.image(t, innerdock.ImageDefinition{PythonVersion: "python3.11", Steps: []innerdock.ImageStep{{Command: "echo travelled > /where; chmod 4755 /where"}}})
	must := func(args ...string) string {
		t.Helper()
		got := shared.cli(t, nil, args...)
		if got.code != 0 {
			t.Fatalf("%q: %+v", args, got)
		}
		return strings.TrimSpace(got.stdout)
	}
	must("image", "push", built.ID[:20], ref)
	pulled := must("image", "pull", ref)
	if got := must("run", pulled, "--", "sh", "-c", "cat /where; stat -c %a /where; python3 -c 'print(6*7)'"); got != "travelled\n4755\n42" {
		t.Errorf("in the sandbox there is %q", got)
	}
	if got := must("image", "history", pulled); !strings.Contains(got, "echo travelled") {
		t.Errorf("its history is %s", got)
	}
	if got := must("image", "inspect", pulled); !strings.Contains(got, ref) {
		t.Errorf("it is %s", got)
	}
	archive := filepath.Join(t.TempDir(), "app.tar")
	must("image", "export", "-f", archive, pulled)
	imported := must("image", "import", archive)
	if got := must("run", imported, "--", "cat", "/where"); got != "travelled" {
		t.Errorf("after the import there is %q", got)
	}
	sandbox := must("create", imported)
	if got := shared.cli(t, nil, "image", "rm", imported); got.code == 0 || !strings.Contains(got.stderr, "terminate") {
		t.Errorf("an image in use was removed: %+v", got)
	}
	must("rm", sandbox)
	must("image", "rm", imported, pulled)
	if got := shared.cli(t, nil, "image", "inspect", pulled); got.code == 0 {
		t.Errorf("it is still there: %+v", got)
	}
	waitEmpty(t, shared)
}
