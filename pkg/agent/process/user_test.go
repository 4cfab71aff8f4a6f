package process

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
)

const passwd = `root:x:0:0:root:/root:/bin/sh
broken
nobody-uid:x:zero:0::/:
app:x:1500:1501:An app:/home/app:/bin/sh
homeless:x:1502:1502:::
3000:x:1503:1503::/number:
`

const group = `root:x:0:
app:x:1501:
staff:x:1600:other,app
extra:x:1601:app
apps:x:1602:apple
`

func etc(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"passwd": passwd, "group": group} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLookupUser(t *testing.T) {
	dir := etc(t)
	for _, tc := range []struct {
		name string
		want *Identity
		fail string
	}{
		{"", nil, ""},
		{"root", nil, ""},
		{"0", nil, ""},
		{"app", &Identity{1500, 1501, []uint32{1600, 1601}, "/home/app"}, ""},
		{"1500", &Identity{1500, 1501, []uint32{1600, 1601}, "/home/app"}, ""},
		{"app:staff", &Identity{1500, 1600, nil, "/home/app"}, ""},
		{"app:77", &Identity{1500, 77, nil, "/home/app"}, ""},
		{"root:staff", &Identity{0, 1600, nil, "/root"}, ""},
		{"homeless", &Identity{1502, 1502, nil, "/"}, ""},
		{"3000", &Identity{1503, 1503, nil, "/number"}, ""}, // a name that looks like a number
		{"4000", &Identity{4000, 0, nil, "/"}, ""},
		{"4000:4001", &Identity{4000, 4001, nil, "/"}, ""},
		{"absent", nil, `no user "absent"`},
		{"nobody-uid", nil, "no user"},
		{"app:absent", nil, `no group "absent"`},
		{"-1", nil, "no user"},
		{"4294967295", nil, "no user"}, // for the kernel: leave it as it is
	} {
		got, err := LookupUser(dir, tc.name)
		if tc.fail != "" {
			if innerdock.CodeOf(err) != innerdock.CodeInvalid || !strings.Contains(err.Error(), tc.fail) {
				t.Errorf("%q: the error is %v, want %q", tc.name, err, tc.fail)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%q is %+v (%v), want %+v", tc.name, got, err, tc.want)
		}
	}
	if got, err := LookupUser(t.TempDir(), "7"); err != nil || got.UID != 7 {
		t.Errorf("without the files: %+v, %v", got, err)
	}
}

// TestHostileAccounts: what root of the sandbox may have put there must not stop
// or fill the agent.
func TestHostileAccounts(t *testing.T) {
	for name, prepare := range map[string]func(path string) error{
		"a pipe":      func(path string) error { return unix.Mkfifo(path, 0o644) },
		"a directory": func(path string) error { return os.Mkdir(path, 0o755) },
		"a long line": func(path string) error { return os.WriteFile(path, make([]byte, 1<<20), 0o644) },
	} {
		dir := t.TempDir()
		if err := prepare(filepath.Join(dir, "passwd")); err != nil {
			t.Fatal(err)
		}
		if _, err := LookupUser(dir, "app"); innerdock.CodeOf(err) != innerdock.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	dir := etc(t)
	line := "g%d:x:%d:app\n"
	var many strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&many, line, i, 10000+i)
	}
	if err := os.WriteFile(filepath.Join(dir, "group"), []byte(many.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	if who, err := LookupUser(dir, "app"); err != nil || len(who.Groups) != maxGroups {
		t.Errorf("%d groups, %v", len(who.Groups), err)
	}
}

func TestExecAsUser(t *testing.T) {
	r := newRig(t)
	dir := etc(t)
	r.table.root = filepath.Dir(dir)
	if err := os.Rename(dir, filepath.Join(r.table.root, "etc")); err != nil {
		t.Fatal(err)
	}
	for d := r.dir; d != "/"; d = filepath.Dir(d) { // the user must be able to enter it
		if info, err := os.Stat(d); err == nil && info.Mode()&0o001 == 0 {
			if err := os.Chmod(d, info.Mode().Perm()|0o011); err != nil {
				t.Fatal(err)
			}
		}
	}
	defaults := r.table.current()
	defaults.User = "app"
	r.table.SetDefaults(defaults)
	tell := []string{"sh", "-c", "id -u; id -g; id -G; echo $HOME; pwd"}
	for _, tc := range []struct {
		spec innerdock.ProcessSpec
		want string
	}{
		{innerdock.ProcessSpec{}, "1500\n1501\n1501 1600 1601\n/home/app\n" + r.dir + "\n"},
		{innerdock.ProcessSpec{User: "root"}, "0\n0\n"},
		{innerdock.ProcessSpec{User: "app:staff", Cwd: "/", Env: map[string]string{"HOME": "/else"}}, "1500\n1600\n1600\n/else\n/\n"},
	} {
		tc.spec.Args = tell
		if out := r.out(r.exec("?wait=true", tc.spec), "stdout"); !strings.HasPrefix(out, tc.want) {
			t.Errorf("%+v: %q, want %q", tc.spec, out, tc.want)
		}
	}
	if response, body := r.do("POST", "/processes", `{"args":["true"],"user":"absent"}`); response.StatusCode != http.StatusBadRequest {
		t.Errorf("an absent user: %d %s", response.StatusCode, body)
	}
	locked := filepath.Join(r.dir, "locked")
	if err := os.Mkdir(locked, 0o700); err != nil {
		t.Fatal(err)
	}
	if response, body := r.do("POST", "/processes", `{"args":["true"],"cwd":"`+locked+`"}`); response.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "user 1500 may not") {
		t.Errorf("a directory of root's: %d %s", response.StatusCode, body)
	}
}
