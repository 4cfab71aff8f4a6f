// Package census lists everything that sandboxes may leave on a host: processes,
// network namespaces, interfaces, nftables objects, mounts, cgroups, files and
// rows. Tests take one before and after, and expect no difference.
package census

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/innerdock/innerdock/pkg/store"
	"github.com/innerdock/innerdock/pkg/worker"
)

// Take lists what belongs to sandboxes of the server whose data directory it
// is, one line each, sorted.
func Take(ctx context.Context, data string) ([]string, error) {
	prefix := worker.Prefix(data)
	found := slices.Concat(
		processes(data),
		matches("netns", "/run/netns/innerdock-"+prefix+"*"),
		interfaces("idk"+prefix),
		matches("cgroup", "/sys/fs/cgroup/innerdock/"+prefix+"*"),
		matches("cgroup", "/sys/fs/cgroup/*/innerdock/"+prefix+"*"),
		mounts(data),
		below(filepath.Join(data, "sandboxes")),
		below(filepath.Join(data, "scratch")),
		below(filepath.Join(data, "memories")),
		below(filepath.Join(data, "runsc")),
		matches("file", filepath.Join(data, "templates", ".*")),
	)
	rules, err := nftables(ctx, prefix)
	if err != nil {
		return nil, err
	}
	rows, err := liveRows(ctx, filepath.Join(data, "innerdock.db"))
	if err != nil {
		return nil, err
	}
	found = slices.Concat(found, rules, rows)
	// runsc keeps one empty network namespace for all file servers of a server.
	found = slices.DeleteFunc(found, func(line string) bool { return strings.HasSuffix(line, "/runsc/null-netns") })
	slices.Sort(found)
	return found, nil
}

// processes are those of the sandboxes: runsc and its sentries and gofers name
// their state directory in their arguments.
func processes(data string) []string {
	var found []string
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		if args := strings.ReplaceAll(string(content), "\x00", " "); strings.Contains(args, data+"/runsc") {
			found = append(found, "process "+filepath.Base(filepath.Dir(file))+" "+args[:min(len(args), 120)])
		}
	}
	return found
}

func matches(kind, pattern string) []string {
	var found []string
	paths, _ := filepath.Glob(pattern)
	for _, path := range paths {
		found = append(found, kind+" "+path)
	}
	return found
}

// interfaces are the host's ends of the sandboxes' veths; the server's own
// service interface has the bare prefix as its name.
func interfaces(prefix string) []string {
	var found []string
	links, _ := net.Interfaces()
	for _, link := range links {
		if strings.HasPrefix(link.Name, prefix) && link.Name != prefix {
			found = append(found, "interface "+link.Name)
		}
	}
	return found
}

func mounts(data string) []string {
	var found []string
	content, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(content)) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], data+"/") {
			found = append(found, "mount "+fields[1])
		}
	}
	return found
}

func below(dir string) []string {
	var found []string
	_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && path != dir {
			found = append(found, "file "+path)
		}
		return nil
	})
	return found
}

// nftables lists the lines of the ruleset that name a sandbox of this server.
func nftables(ctx context.Context, prefix string) ([]string, error) {
	out, err := exec.CommandContext(ctx, "nft", "list", "ruleset").Output()
	if err != nil {
		return nil, fmt.Errorf("nft list ruleset: %w", err)
	}
	var found []string
	for line := range strings.Lines(string(out)) {
		for _, word := range strings.Fields(line) {
			word = strings.Trim(word, `",{}`)
			if strings.HasPrefix(word, "idk"+prefix) && len(word) == len("idk"+prefix)+8 {
				found = append(found, "nft "+strings.TrimSpace(line))
				break
			}
		}
	}
	return found, nil
}

func liveRows(ctx context.Context, path string) ([]string, error) {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	db, err := store.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	records, err := db.Live(ctx)
	var found []string
	for _, rec := range records {
		found = append(found, "row "+rec.ID+" "+string(rec.State))
	}
	return found, errors.Join(err, db.Close())
}
