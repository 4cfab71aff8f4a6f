package debian

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

func TestFind(t *testing.T) {
	for _, tc := range []struct {
		repository, tag string
		want            Base
		ok              bool
	}{
		{"library/python", "3.11", Base{"bookworm", "3.11"}, true},
		{"library/python", "3.11-slim", Base{"bookworm", "3.11"}, true},
		{"library/python", "3.11-slim-bookworm", Base{"bookworm", "3.11"}, true},
		{"library/python", "3.13-trixie", Base{"trixie", "3.13"}, true},
		{"library/python", "3.11-trixie", Base{}, false},
		{"library/python", "3.11-alpine", Base{}, false},
		{"library/python", "3.12", Base{}, false},
		{"library/python", "3.11.4", Base{}, false},
		{"library/debian", "latest", Base{Suite: "bookworm"}, true},
		{"library/debian", "13-slim", Base{Suite: "trixie"}, true},
		{"library/debian", "sid", Base{}, false},
		{"library/nginx", "latest", Base{}, false},
		{"someone/python", "3.11", Base{}, false},
	} {
		if got, ok := Find(tc.repository, tc.tag); got != tc.want || ok != tc.ok {
			t.Errorf("%s:%s is %v, %v; want %v, %v", tc.repository, tc.tag, got, ok, tc.want, tc.ok)
		}
	}
}

func TestHost(t *testing.T) {
	for _, tc := range []struct{ name, targets, mirror, security string }{
		{"nothing", "", "", ""},
		{"Debian", "http://m/debian/ Debian Debian main\nhttp://m/debian/ Debian Debian contrib\nhttp://s/security/ Debian Debian-Security main\n", "http://m/debian", "http://s/security"},
		{"private mirror without security", "http://m/debian/ Debian Debian main\n", "http://m/debian", ""},
		{"Ubuntu", "http://archive/ubuntu/ Ubuntu Ubuntu main\n", "", ""},
		{"other repositories", "https://x/apt/ X X main\nfile:/cd/ Debian Debian main\n", "", ""},
		{"password", "https://user:secret@m/debian/ Debian Debian main\n", "", ""},
	} {
		if h := parseTargets(tc.targets); h.mirror != tc.mirror || h.security != tc.security {
			t.Errorf("%s: %q and %q, want %q and %q", tc.name, h.mirror, h.security, tc.mirror, tc.security)
		}
	}
	for _, tc := range []struct {
		host hostConfig
		want []string
	}{
		{hostConfig{}, nil}, // mmdebstrap knows Debian's own
		{hostConfig{mirror: "http://m"}, []string{"deb http://m trixie main", "deb http://m trixie-updates main"}},
		{hostConfig{mirror: "http://m", security: "http://s"},
			[]string{"deb http://m trixie main", "deb http://m trixie-updates main", "deb http://s trixie-security main"}},
	} {
		if got := tc.host.sources("trixie"); !slices.Equal(got, tc.want) {
			t.Errorf("the sources of %+v are %q", tc.host, got)
		}
	}
	options, proxies := parseOptions(`Acquire "";
Acquire::Check-Valid-Until "false";
Acquire::Retries "";
Acquire::http::Proxy "http://user:secret@proxy:3128";
Acquire::https::Proxy "";
Acquire::Evil "x"; rm -rf /";
Acquire::Languages:: "de";
`)
	if !slices.Equal(options, []string{`Acquire::Check-Valid-Until "false";`}) || !slices.Equal(proxies, []string{"http_proxy=http://user:secret@proxy:3128"}) {
		t.Errorf("the options are %q, the proxies %q", options, proxies)
	}
}

func TestArgv(t *testing.T) {
	host := hostConfig{mirror: "http://m/debian", security: "http://s/security", options: []string{`Acquire::Retries "3";`}, proxies: []string{"http_proxy=secret"}}
	got := strings.Join(argv(Base{"bookworm", "3.11"}, host, []string{"/ca/a.crt", "/ca/it's.crt"}), "\n") + "\n"
	const golden = "testdata/argv.golden"
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
		t.Errorf("the command line is\n%s\nwant\n%s", got, want)
	}
}

// TestKey checks that a base is made anew when its inputs change.
func TestKey(t *testing.T) {
	dir := t.TempDir()
	p := Provider{CertificateDir: dir}
	seen := map[string]bool{}
	key := func(b Base) {
		t.Helper()
		k, err := p.Key(b)
		if err != nil || len(k) != 64 || seen[k] {
			t.Errorf("the key of %v is %q, %v, seen before: %v", b, k, err, seen[k])
		}
		seen[k] = true
		if again, err := p.Key(b); again != k || err != nil {
			t.Errorf("the key of %v is %q and then %q, %v", b, k, again, err)
		}
	}
	key(Base{"bookworm", "3.11"})
	key(Base{"trixie", "3.13"})
	key(Base{Suite: "bookworm"})
	if err := os.WriteFile(filepath.Join(dir, "own.crt"), []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	key(Base{Suite: "bookworm"})
	if err := os.WriteFile(filepath.Join(dir, "own.crt"), []byte("two"), 0o600); err != nil {
		t.Fatal(err)
	}
	key(Base{Suite: "bookworm"})
}

func TestLines(t *testing.T) {
	var got []string
	l := &lines{emit: func(s string) { got = append(got, s) }}
	for _, s := range []string{"I: one\nI: t", "wo\n\rbar\r  \n", strings.Repeat("x", 3000), "\nlast"} {
		if _, err := l.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	l.flush()
	if want := []string{"one", "two", strings.Repeat("x", 3000), "last"}; !slices.Equal(got, want) {
		t.Errorf("the lines are %.60q", got)
	}
	got, l.hide = nil, "/host/tmp"
	l.line("using /host/tmp/x as tempdir")
	l.line("running special hook: copy-in '/host/ca.crt'")
	l.line("shown")
	if !slices.Equal(got, []string{"shown"}) || !strings.Contains(l.last(), "/host/tmp/x") {
		t.Errorf("emitted are %q, kept %q", got, l.last())
	}
	for i := range 100 {
		l.line(strings.Repeat("y", i+1))
	}
	if n := strings.Count(l.last(), "\n") + 1; n != lastLines {
		t.Errorf("%d lines are kept", n)
	}
}
