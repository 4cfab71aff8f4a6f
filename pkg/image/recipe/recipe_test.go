package recipe

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
)

// fake is a program that keeps what it is asked for.
const fake = "#!/bin/sh\nfor word; do printf '<%s>' \"$word\" >> /opt/log; done\necho >> /opt/log\n"

func archive(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	compressed := gzip.NewWriter(&b)
	w := tar.NewWriter(compressed)
	must(t, w.WriteHeader(&tar.Header{Name: "bin/micromamba", Mode: 0o755, Size: int64(len(fake))}))
	_, err := w.Write([]byte(fake))
	must(t, err)
	must(t, w.Close())
	must(t, compressed.Close())
	return b.Bytes()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run runs a script, and more after it, with an /opt of its own.
func run(t *testing.T, url string, scripts ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("unshare", append([]string{"--mount", "sh", "-ec", `mount -t tmpfs tmpfs /opt; for script; do sh -c "$script"; done`, "sh"}, scripts...)...)
	cmd.Env = append(cmd.Environ(), "MICROMAMBA_URL="+url)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestMicromamba(t *testing.T) {
	fetched := 0
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fetched++
		_, _ = w.Write(archive(t))
	}))
	defer site.Close()
	out, err := run(t, site.URL, Micromamba(nil, nil), Micromamba([]string{"numpy >=2", "it's"}, nil), Micromamba([]string{"x"}, []string{"a b", "c"}), "cat /opt/log")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const common = "<install><--yes><--root-prefix></opt/micromamba><--name><base>"
	for _, want := range []string{
		common + "<--channel><conda-forge><numpy >=2><it's>\n",
		common + "<--channel><a b><--channel><c><x>\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Count(out, "<install>") != 2 || fetched != 1 {
		t.Errorf("installed or fetched too often (%d):\n%s", fetched, out)
	}
}

func TestMicromambaOutOfReach(t *testing.T) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("<html>Please log in</html>"))
	}))
	defer page.Close()
	for url, want := range map[string]string{
		"http://127.0.0.1:1/": `.with_envs({"MICROMAMBA_URL"`,
		page.URL:              "is not micromamba's archive",
	} {
		if out, err := run(t, url, Micromamba(nil, nil)); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v, no %q in\n%s", url, err, want, out)
		}
	}
}
