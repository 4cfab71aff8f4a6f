package process

import (
	"bufio"
	"cmp"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/innerdock/innerdock"
)

// maxAccounts is how much of /etc/passwd and /etc/group is read.
const maxAccounts = 4 << 20

// maxGroups is how many groups a process may be in besides its own.
const maxGroups = 256

// Identity is whom a process runs as.
type Identity struct {
	UID, GID uint32
	Groups   []uint32
	Home     string
}

// credential is what the kernel is told; nil for root as the agent is it.
func (i *Identity) credential() *syscall.Credential {
	if i == nil {
		return nil
	}
	return &syscall.Credential{Uid: i.UID, Gid: i.GID, Groups: i.Groups}
}

// LookupUser finds a user as images and `docker exec` name one: a name or a
// number and, behind a colon, a group. Names are those of the files in etc, a
// number needs not be there. The result is nil for root.
func LookupUser(etc, name string) (*Identity, error) {
	user, group, hasGroup := strings.Cut(name, ":")
	if (user == "" || user == "root" || user == "0") && !hasGroup {
		return nil, nil
	}
	who := &Identity{Home: "/"}
	id, numeric := number(cmp.Or(user, "0"))
	login, found := user, false
	err := accounts(filepath.Join(etc, "passwd"), 7, func(f []string) {
		uid, ok := number(f[2])
		gid, isGroup := number(f[3])
		if found || !ok || !isGroup || f[0] != user && (!numeric || uid != id) {
			return
		}
		found, login = true, f[0]
		who.UID, who.GID, who.Home = uid, gid, cmp.Or(f[5], "/")
	})
	switch {
	case err != nil:
		return nil, err
	case !found && !numeric:
		return nil, innerdock.Errorf(innerdock.CodeInvalid, "there is no user %q in the sandbox's /etc/passwd; make it in the image, or run as another, such as root or a number", user)
	case !found:
		who.UID = id
	}
	return who, who.join(etc, login, group, hasGroup)
}

// join finds the groups: the one that is named, or all that login is in.
func (i *Identity) join(etc, login, group string, named bool) error {
	id, numeric := number(group)
	found := false
	err := accounts(filepath.Join(etc, "group"), 4, func(f []string) {
		gid, ok := number(f[2])
		switch {
		case !ok:
		case named && !found && (f[0] == group || numeric && gid == id):
			i.GID, found = gid, true
		case !named && gid != i.GID && len(i.Groups) < maxGroups && contains(f[3], login):
			i.Groups = append(i.Groups, gid)
		}
	})
	switch {
	case err != nil || !named || found:
		return err
	case !numeric:
		return innerdock.Errorf(innerdock.CodeInvalid, "there is no group %q in the sandbox's /etc/group; make it in the image, or name another", group)
	}
	i.GID = id
	return nil
}

func contains(list, name string) bool {
	for member := range strings.SplitSeq(list, ",") {
		if member == name {
			return true
		}
	}
	return false
}

func number(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return uint32(n), err == nil
}

// accounts calls line with the fields of each line that has so many. A file that
// is not there has none.
func accounts(path string, fields int, line func([]string)) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return innerdock.Errorf(innerdock.CodeInvalid, "users cannot be looked up in the sandbox: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return innerdock.Errorf(innerdock.CodeInvalid, "users cannot be looked up in the sandbox: %s is no file", path)
	}
	lines := bufio.NewScanner(io.LimitReader(f, maxAccounts))
	lines.Buffer(nil, 64<<10)
	for lines.Scan() {
		if all := strings.Split(lines.Text(), ":"); len(all) >= fields {
			line(all)
		}
	}
	if err := lines.Err(); err != nil {
		return innerdock.Errorf(innerdock.CodeInvalid, "users cannot be looked up in the sandbox: %s: %w", path, err)
	}
	return nil
}
