package upper

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// TestToLayerOfRunsc converts what runsc wrote for a sandbox on Debian bookworm
// that removed, replaced and made files of every kind.
func TestToLayerOfRunsc(t *testing.T) {
	f, err := os.Open("testdata/runsc.tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := ToLayer(in, &out); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(list(t, &out), "\n") + "\n"
	const golden = "testdata/runsc.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the layer is\n%s\nwant\n%s", got, want)
	}
}

func list(t *testing.T, r io.Reader) []string {
	t.Helper()
	var lines []string
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%c %04o %d:%d %d %s", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Size, h.Name)
		if h.Linkname != "" {
			line += " -> " + h.Linkname
		}
		for _, k := range []string{"SCHILY.xattr.security.capability", "SCHILY.xattr.trusted.overlay.opaque"} {
			if v, ok := h.PAXRecords[k]; ok {
				line += fmt.Sprintf(" %s=%x", k, v)
			}
		}
		lines = append(lines, line)
	}
}

func TestToLayer(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   []tar.Header
		want []string
	}{
		{"a link to an excluded file", []tar.Header{
			{Typeflag: tar.TypeReg, Name: "./etc/hosts"}, {Typeflag: tar.TypeLink, Name: "./x", Linkname: "./etc/hosts"},
		}, nil},
		{"a link to a device", []tar.Header{
			{Typeflag: tar.TypeChar, Name: "./a", Devmajor: 1, Devminor: 3}, {Typeflag: tar.TypeLink, Name: "./b", Linkname: "./a"},
		}, nil},
		{"whiteouts of excluded paths", []tar.Header{
			{Typeflag: tar.TypeChar, Name: "./etc/resolv.conf"}, {Typeflag: tar.TypeLink, Name: "./gone", Linkname: "./etc/resolv.conf"},
		}, []string{"0 0600 0:0 0 .wh.gone"}},
		{"names that only begin alike", []tar.Header{
			{Typeflag: tar.TypeReg, Name: "./etc/hosts.allow"}, {Typeflag: tar.TypeReg, Name: "./devel"},
		}, []string{"0 0000 0:0 0 etc/hosts.allow", "0 0000 0:0 0 devel"}},
		{"a name with ..", []tar.Header{{Typeflag: tar.TypeReg, Name: "./../../x"}}, []string{"0 0000 0:0 0 x"}},
		{"an opaque root", []tar.Header{
			{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755, PAXRecords: map[string]string{opaque: "y"}},
		}, []string{"5 0755 0:0 0 ./"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var in, out bytes.Buffer
			tw := tar.NewWriter(&in)
			for _, h := range tc.in {
				if err := tw.WriteHeader(&h); err != nil {
					t.Fatal(err)
				}
			}
			if err := tw.Close(); err != nil {
				t.Fatal(err)
			}
			if err := ToLayer(&in, &out); err != nil {
				t.Fatal(err)
			}
			if got := list(t, &out); !slices.Equal(got, tc.want) {
				t.Errorf("the layer is %q, want %q", got, tc.want)
			}
		})
	}
}

func TestToLayerOfGarbage(t *testing.T) {
	if err := ToLayer(strings.NewReader(strings.Repeat("garbage ", 200)), io.Discard); err == nil {
		t.Error("no error")
	}
}

// FuzzToLayer checks that whatever a sandbox hands over, the layer has no
// device nodes and nothing that is excluded.
func FuzzToLayer(f *testing.F) {
	var seed bytes.Buffer
	tw := tar.NewWriter(&seed)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "./a/", PAXRecords: map[string]string{opaque: "y"}},
		{Typeflag: tar.TypeChar, Name: "./a/b"},
		{Typeflag: tar.TypeLink, Name: "./c", Linkname: "./a/b"},
		{Typeflag: tar.TypeChar, Name: "./d", Devmajor: 1},
		{Typeflag: tar.TypeReg, Name: "./etc/hosts"},
		{Typeflag: tar.TypeSymlink, Name: "./e", Linkname: "/x"},
	} {
		if err := tw.WriteHeader(&h); err != nil {
			f.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(seed.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		var out bytes.Buffer
		if ToLayer(bytes.NewReader(data), &out) != nil {
			return
		}
		tr := tar.NewReader(&out)
		for {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				t.Fatalf("the layer is no archive: %v", err)
			}
			if !kept(h.Typeflag) || excluded(relative(h.Name)) || strings.HasPrefix(h.Name, "../") {
				t.Fatalf("%q of type %q came through", h.Name, h.Typeflag)
			}
		}
	})
}
