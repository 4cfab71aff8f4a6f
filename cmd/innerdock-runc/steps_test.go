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

// runc is a command line as containerd's shim makes them.
func runc(root string, rest ...string) []string {
	return append([]string{"runc", "--root", root, "--log", "/l/log.json", "--log-format", "json"}, rest...)
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

func gone(path string) bool {
	_, err := os.Lstat(path)
	return os.IsNotExist(err)
}

func TestACreatedContainerIsStarted(t *testing.T) {
	root := t.TempDir()
	fifo := filepath.Join(container(t, root, nil), "exec.fifo")
	if err := syscall.Mkfifo(fifo, 0o622); err != nil {
		t.Fatal(err)
	}
	said := make(chan error, 1)
	go func() { said <- os.WriteFile(fifo, []byte("0"), 0) }() // as runc's init does
	if !step(runc(root, "start", id)) {
		t.Error("it is left to runc")
	}
	if err := <-said; err != nil {
		t.Error(err)
	}
	if !gone(fifo) {
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

// ended is what runc keeps of a container whose first process has ended; its
// cgroup is a directory.
func ended(t *testing.T) (record map[string]any, cgroup string) {
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
			"namespaces": []any{map[string]any{"type": "NEWNS", "path": ""}, map[string]any{"type": "NEWPID", "path": ""}},
			"Hooks":      map[string]any{"prestart": []any{map[string]any{"path": "/x"}}, "poststop": nil},
		},
	}, cgroup
}

func TestAContainerThatHasEndedIsRemoved(t *testing.T) {
	root := t.TempDir()
	record, cgroup := ended(t)
	dir := container(t, root, record)
	if !step(runc(root, "--systemd-cgroup", "delete", id)) || !gone(dir) || !gone(cgroup) {
		t.Error("it is not removed, with its cgroup")
	}
	if !step(runc(root, "delete", "--force", id)) {
		t.Error("that there is none is left to runc to find")
	}
}

// The number of a process that has ended may be another's.
func TestAContainerHasEndedWhoseNumberIsAnothers(t *testing.T) {
	root := t.TempDir()
	record, _ := ended(t)
	record["init_process_pid"] = os.Getpid()
	if dir := container(t, root, record); !step(runc(root, "delete", id)) || !gone(dir) {
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
			config(record)["namespaces"] = []any{map[string]any{"type": "NEWPID", "path": "/proc/1/ns/pid"}}
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
	} {
		root := t.TempDir()
		record, cgroup := ended(t)
		change(record, cgroup)
		if dir := container(t, root, record); step(runc(root, "delete", id)) || gone(dir) {
			t.Errorf("%s, and it was removed", name)
		}
		if step(runc(root, "delete", "--force", id)) {
			t.Errorf("%s, and is not killed", name)
		}
	}
	root := t.TempDir()
	record, _ := ended(t)
	dir := container(t, root, record)
	for _, args := range [][]string{
		{"runc"}, {"runc", "delete", id}, {"runc", "--root"}, runc(root), runc(root, "delete"), runc(root, "--what", "delete", id),
		runc(root, "delete", "--other", id), runc(root, "delete", "--force", "--force", id), runc(root, "kill", id),
		runc(root, "delete", ""), runc(root, "delete", ".."), runc(root, "delete", "a/../"+id), runc(root, "delete", "--force", "."),
	} {
		if step(args) || gone(dir) {
			t.Errorf("%q was done", args)
		}
	}
}

// A container that was begun and never finished leaves a directory.
func TestWhatWasNeverFinishedIsRemovedByForce(t *testing.T) {
	root := t.TempDir()
	dir := container(t, root, nil)
	if !step(runc(root, "delete", "--force", id)) || !gone(dir) {
		t.Error("it is left")
	}
}
