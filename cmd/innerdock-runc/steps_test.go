package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

const id = "26d94b7c657a352560d8958b6f89e817ccc92aa1205be255728732da6ba8a086"

// runc is a start of it as containerd's shim does it.
func runc(root string, rest ...string) *start {
	return &start{args: append([]string{"runc", "--root", root, "--log", "/l/log.json", "--log-format", "json"}, rest...)}
}

// container makes the directory that runc keeps of one, and returns it.
func container(t *testing.T, root string, record map[string]any) string {
	t.Helper()
	dir := filepath.Join(root, id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if record != nil {
		content, err := json.Marshal(record)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "state.json"), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func missing(path string) bool {
	_, err := os.Lstat(path)
	return os.IsNotExist(err)
}

// goOn starts a process that does with the fifo what runc's init does.
func goOn(t *testing.T, fifo string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `printf 0 > "$0"`, fifo)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestACreatedContainerIsStarted(t *testing.T) {
	root := t.TempDir()
	fifo := filepath.Join(container(t, root, nil), "exec.fifo")
	if err := syscall.Mkfifo(fifo, 0o622); err != nil {
		t.Fatal(err)
	}
	said := goOn(t, fifo)
	if !step(runc(root, "start", id)) {
		t.Error("it is left to runc")
	}
	if err := said.Wait(); err != nil {
		t.Error(err)
	}
	if !missing(fifo) {
		t.Error("its fifo is left: runc takes it for one that was not started")
	}
	if step(runc(root, "start", id)) {
		t.Error("it is started again")
	}
}

// What waits for no start leaves the error to runc.
func TestADeadContainerIsNotStarted(t *testing.T) {
	root := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(container(t, root, nil), "exec.fifo"), 0o622); err != nil {
		t.Fatal(err)
	}
	if step(runc(root, "start", id)) {
		t.Error("it is started")
	}
}

// namespace is one of those that a container has, as runc writes it.
type namespace struct {
	Type string `json:"type"`
	Path string `json:"path"`
}

// over is what runc keeps of a container whose first process has ended; its
// cgroup is a directory.
func over(t *testing.T) (record map[string]any, cgroup string) {
	t.Helper()
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	cgroup = filepath.Join(t.TempDir(), id)
	if err := os.Mkdir(cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
	return map[string]any{
		"id": id, "init_process_pid": cmd.Process.Pid, "init_process_start": 4711,
		"cgroup_paths": map[string]string{"memory": cgroup, "pids": cgroup + "/none"},
		"config": map[string]any{
			"namespaces": []namespace{{"NEWNS", ""}, {"NEWPID", ""}},
			"Hooks":      map[string]any{"prestart": []any{map[string]any{"path": "/x"}}, "poststop": nil},
			"labels":     []any{`"init_process_pid":1,"poststop":[{}],"cgroup_paths":{"memory":"/sys"}`, `"intel_rdt_path":"/x"`},
		},
	}, cgroup
}

func TestAContainerThatHasEndedIsRemoved(t *testing.T) {
	root := t.TempDir()
	record, cgroup := over(t)
	dir := container(t, root, record)
	if !step(runc(root, "--systemd-cgroup", "delete", id)) || !missing(dir) || !missing(cgroup) {
		t.Error("it is not removed, with its cgroup")
	}
	if !step(runc(root, "delete", "--force", id)) {
		t.Error("that there is none is left to runc to find")
	}
}

// The number of a process that has ended may be another's.
func TestAContainerHasEndedWhoseNumberIsAnothers(t *testing.T) {
	root := t.TempDir()
	record, _ := over(t)
	record["init_process_pid"] = os.Getpid()
	if dir := container(t, root, record); !step(runc(root, "delete", id)) || !missing(dir) {
		t.Error("it is not removed")
	}
}

func TestWhatIsUnusualIsLeftToRunc(t *testing.T) {
	self, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	began, err := strconv.ParseUint(strings.Fields(string(self[strings.LastIndex(string(self), ")")+1:]))[19], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	config := func(record map[string]any) map[string]any { return record["config"].(map[string]any) }
	for name, change := range map[string]func(record map[string]any, cgroup string){
		"it lives": func(record map[string]any, _ string) {
			record["init_process_pid"], record["init_process_start"] = os.Getpid(), began
		},
		"its processes may live on": func(record map[string]any, _ string) {
			config(record)["namespaces"] = []namespace{{"NEWPID", "/proc/1/ns/pid"}}
		},
		"a program is to be told": func(record map[string]any, _ string) {
			config(record)["Hooks"] = map[string]any{"poststop": []any{map[string]any{"path": "/x"}}}
		},
		"its cgroup is in use": func(_ map[string]any, cgroup string) {
			if err := os.Mkdir(cgroup+"/inner", 0o755); err != nil {
				t.Fatal(err)
			}
		},
		"its cgroups are unknown": func(record map[string]any, _ string) { delete(record, "cgroup_paths") },
		"its cgroup has a name that is encoded": func(record map[string]any, cgroup string) {
			record["cgroup_paths"] = map[string]string{"memory": cgroup + `\"`}
		},
		"it has a part of the cache": func(record map[string]any, _ string) { record["intel_rdt_path"] = "/sys/fs/resctrl/x" },
		"its process is unknown":     func(record map[string]any, _ string) { delete(record, "init_process_pid") },
	} {
		root := t.TempDir()
		record, cgroup := over(t)
		change(record, cgroup)
		if dir := container(t, root, record); step(runc(root, "delete", id)) || missing(dir) {
			t.Errorf("%s, and it was removed", name)
		}
		if step(runc(root, "delete", "--force", id)) {
			t.Errorf("%s, and is not killed", name)
		}
	}
	root := t.TempDir()
	record, _ := over(t)
	dir := container(t, root, record)
	for _, s := range []*start{
		{}, {args: []string{"runc"}}, {args: []string{"runc", "delete", id}}, {args: []string{"runc", "--root"}},
		runc(root), runc(root, "delete"), runc(root, "--what", "delete", id),
		runc(root, "delete", "--other", id), runc(root, "delete", "--force", "--force", id), runc(root, "kill", id),
		runc(root, "delete", ""), runc(root, "delete", ".."), runc(root, "delete", "a/../"+id), runc(root, "delete", "--force", "."),
	} {
		if step(s) || missing(dir) {
			t.Errorf("%q was done", s.args)
		}
	}
}

// A container that was begun and never finished leaves a directory.
func TestWhatWasNeverFinishedIsRemovedByForce(t *testing.T) {
	root := t.TempDir()
	dir := container(t, root, nil)
	if !step(runc(root, "delete", "--force", id)) || !missing(dir) {
		t.Error("it is left")
	}
}

// Its directory may hold what this program does not know.
func TestOnlyFilesAreRemoved(t *testing.T) {
	root := t.TempDir()
	record, _ := over(t)
	dir := container(t, root, record)
	if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	if step(runc(root, "delete", id)) || missing(filepath.Join(dir, "state.json")) {
		t.Error("it is removed, or runc does not know it any longer")
	}
}

// runc's own directory is where BuildKit has its containers.
func TestTheDirectoryThatIsNotGiven(t *testing.T) {
	if root, verb, rest := command([]string{"runc", "--log", "/l", "--log-format", "json", "delete", id}); root != runcRoot || verb != "delete" || len(rest) != 1 {
		t.Errorf("%q, %q, %q", root, verb, rest)
	}
}
