package agent

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/process"
	"github.com/innerdock/innerdock/pkg/agent/reply"
	"github.com/innerdock/innerdock/pkg/agent/wire"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment returns what processes see when nobody says otherwise, with the
// sandbox's own env over it.
func environment(env map[string]string, hostname string) map[string]string {
	all := map[string]string{"PATH": defaultPath, "LANG": "C.UTF-8"}
	if hostname != "" {
		all["HOSTNAME"] = hostname
	}
	maps.Copy(all, env)
	return all
}

func (a *Agent) configure(w http.ResponseWriter, r *http.Request) error {
	var c wire.Configuration
	if err := reply.Body(w, r, 4<<20, &c); err != nil {
		return err
	}
	if err := a.Configure(c); err != nil {
		return err
	}
	if c.Docker != "" {
		if err := a.docker.Open(r.Context(), c.Docker); err != nil {
			return innerdock.Internal(err, "making Docker's socket")
		}
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// Configure tells the sandbox its name, its address and its environment. The
// same configuration again changes nothing, so that what the user wrote to the
// files in /etc since then stays.
func (a *Agent) Configure(c wire.Configuration) error {
	if err := validConfiguration(c); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.processes.SetDefaults(process.Defaults{Env: environment(c.Env, c.Hostname), Dir: a.workingDir(c), User: c.User})
	// The runtime has set it already, unless this is a restore; setting it takes
	// a capability that only sandboxes with Docker have.
	if current, _ := os.Hostname(); a.cfg.Root == "" && current != c.Hostname {
		if err := unix.Sethostname([]byte(c.Hostname)); err != nil {
			return innerdock.Internal(err, "setting the hostname")
		}
	}
	if err := a.writeEtc(c); err != nil {
		return innerdock.Internal(err, "writing the sandbox's name and address")
	}
	a.last = &c
	return nil
}

// workingDir makes the directory that processes begin in, if need be: an image may
// name one that is not there. It is the user's then, and so is an empty /workspace.
// What keeps it from that, or a user that is not there, each process is told.
func (a *Agent) workingDir(c wire.Configuration) string {
	dir := filepath.Join(a.cfg.Root, cmp.Or(c.Dir, innerdock.WorkspaceDir))
	_, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = os.MkdirAll(dir, 0o755)
	} else if c.Dir != "" || !isEmpty(dir) {
		return dir
	}
	who, unknown := process.LookupUser(filepath.Join(a.cfg.Root, "/etc"), c.User)
	if err == nil && unknown == nil && who != nil {
		err = os.Lchown(dir, int(who.UID), int(who.GID))
	}
	if err != nil {
		a.cfg.Log.Warn("the working directory is not as it should be", "dir", dir, "err", err)
	}
	return dir
}

func isEmpty(dir string) bool {
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = f.Readdirnames(1)
	return errors.Is(err, io.EOF)
}

var machineID = regexp.MustCompile(`^[0-9a-f]{32}$`)

func validConfiguration(c wire.Configuration) error {
	if c.Hostname == "" || len(c.Hostname) > 63 || strings.ContainsAny(c.Hostname, " \t\r\n/\x00") {
		return innerdock.Errorf(innerdock.CodeInvalid, "hostname %q is not a host name", c.Hostname)
	}
	if c.Machine != "" && !machineID.MatchString(c.Machine) {
		return innerdock.Errorf(innerdock.CodeInvalid, "%q is not a machine ID", c.Machine)
	}
	if c.Dir != "" && !filepath.IsAbs(c.Dir) || strings.ContainsRune(c.Dir, 0) {
		return innerdock.Errorf(innerdock.CodeInvalid, "%q is not an absolute path", c.Dir)
	}
	for _, s := range []string{c.Address, c.Nameserver} {
		if s == "" {
			continue
		}
		if _, err := netip.ParseAddr(s); err != nil {
			return innerdock.Errorf(innerdock.CodeInvalid, "%q is not an IP address", s)
		}
	}
	return nil
}

// writeEtc writes what changed since the last configuration.
func (a *Agent) writeEtc(c wire.Configuration) error {
	etc := filepath.Join(a.cfg.Root, "/etc")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		return err
	}
	last := wire.Configuration{}
	if a.last != nil {
		last = *a.last
	}
	if c.Hostname != last.Hostname {
		if err := write(filepath.Join(etc, "hostname"), c.Hostname+"\n"); err != nil {
			return err
		}
	}
	if c.Hostname != last.Hostname || c.Address != last.Address {
		path := filepath.Join(etc, "hosts")
		old, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := write(path, hosts(string(old), a.last, c)); err != nil {
			return err
		}
	}
	if c.Machine != last.Machine {
		if err := write(filepath.Join(etc, "machine-id"), c.Machine+"\n"); err != nil {
			return err
		}
	}
	if c.Nameserver != "" && c.Nameserver != last.Nameserver {
		return write(filepath.Join(etc, "resolv.conf"), "nameserver "+c.Nameserver+"\n")
	}
	return nil
}

// hosts returns the content of /etc/hosts. At first it is written anew, as
// container engines do; later only the line of the sandbox itself changes.
func hosts(old string, last *wire.Configuration, c wire.Configuration) string {
	if last == nil {
		return "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" + hostLine(c)
	}
	if line := hostLine(*last); line != "" && strings.Contains(old, line) {
		return strings.Replace(old, line, hostLine(c), 1)
	}
	if old != "" && !strings.HasSuffix(old, "\n") {
		old += "\n"
	}
	return old + hostLine(c)
}

func hostLine(c wire.Configuration) string {
	if c.Address == "" {
		return fmt.Sprintf("127.0.1.1\t%s\n", c.Hostname)
	}
	return fmt.Sprintf("%s\t%s\n", c.Address, c.Hostname)
}

// write replaces a file's content unless it is right already. A symlink, such
// as resolv.conf to a resolver that does not run here, is replaced itself.
func write(path, content string) error {
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, []byte(content)) {
		return nil
	}
	return os.WriteFile(path, []byte(content), 0o644)
}

// makeDirs makes the directories that every sandbox has, where they are missing.
func makeDirs(root string) error {
	for _, dir := range []struct {
		path string
		mode fs.FileMode
	}{
		{innerdock.WorkspaceDir, 0o755}, {"/root", 0o700}, {"/run", 0o755}, {"/var", 0o755},
		{"/tmp", 0o777 | fs.ModeSticky}, {"/var/tmp", 0o777 | fs.ModeSticky},
	} {
		path := filepath.Join(root, dir.path)
		if _, err := os.Stat(path); err == nil {
			continue
		}
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(path, dir.mode); err != nil {
			return err
		}
	}
	varRun := filepath.Join(root, "/var/run")
	if _, err := os.Lstat(varRun); errors.Is(err, fs.ErrNotExist) {
		return os.Symlink("../run", varRun)
	}
	return nil
}
