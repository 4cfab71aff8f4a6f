package worker

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/bits"
	"path/filepath"
	"slices"
	"strings"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/store"
	"github.com/innerdock/innerdock/pkg/worker/template"
)

// openTemplates finds the templates of earlier servers. With no room for any,
// those are removed.
func (w *Worker) openTemplates(ctx context.Context) error {
	templates, err := template.Open(ctx, template.Config{
		Dir: w.templatesDir(), Rows: w.Store, Limit: w.TemplateRoom, Build: w.build(), Log: w.Logger})
	if err == nil && w.TemplateRoom > 0 {
		w.templates = templates
	}
	return err
}

// layout is all that a restore cannot change, so what a template must have in
// common with a sandbox. CPU, memory, name, environment and network policy are
// not part of it.
type layout struct {
	Root    string // its file, which is named after its content
	Scratch string
	Disk    int64
	Shape   int64
	PIDs    int64
	Profile innerdock.DockerProfile
	Mirror  string // of the registry, in dockerd's configuration
	Build   string // of the runtime and agent
}

func (w *Worker) layout(rec *store.Record, root string) layout {
	return layout{Root: root, Scratch: w.ScratchDir(), Disk: rec.Disk, Shape: shape(rec.Memory), PIDs: maxPIDs,
		Profile: rec.Docker.Profile, Mirror: w.Mirror, Build: w.build()}
}

// build names the runtime and the agent of this server.
func (w *Worker) build() string { return w.RuntimeBuild + "-" + filepath.Base(w.agentDir) }

// key names the template of a layout.
func (l layout) key() string {
	text, _ := json.Marshal(l) // of strings and numbers: never fails
	sum := sha256.Sum256(text)
	return encode(sum[:])[:26]
}

// shape is the memory that the limits inside a sandbox are made for: these stay
// with a checkpoint, so there are few of them.
func shape(memory int64) int64 {
	if memory <= 0 {
		return 0
	}
	return 1 << (bits.Len64(uint64(memory)) - 1)
}

// daemonEnv are variables that dockerd reads when it starts, in capitals.
var daemonEnv = []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "GODEBUG", "GOGC", "GOMEMLIMIT", "GOMAXPROCS"}

// cold says why a sandbox cannot be restored from any template, or "".
func (w *Worker) cold(rec *store.Record) string {
	switch {
	case w.templates == nil:
		return "warm starts are turned off"
	case rec.Internal && rec.Pool == "" && rec.Builder == "":
		return "it is the server's own"
	case !rec.Spec.Docker.Enabled:
		return "without Docker a start is faster than a restore"
	}
	if name := daemonVariable(rec); name != "" {
		return "dockerd is to be started with " + name
	}
	return ""
}

// daemonVariable names a variable that dockerd is to have from its start, or "".
func daemonVariable(rec *store.Record) string {
	for name := range rec.Spec.Env {
		if upper := strings.ToUpper(name); slices.Contains(daemonEnv, upper) || strings.HasPrefix(upper, "DOCKER") {
			return name
		}
	}
	return ""
}

// warmth is what a sandbox is started from.
type warmth struct {
	template string // directory of a checkpoint; "": cold
	key      string // of the template that fits; "": none would
	why      string // it is cold
	snapshot bool   // the checkpoint is a user's
	own      bool   // the checkpoint is of this very sandbox
}

// kind says how the sandbox starts.
func (f warmth) kind() innerdock.StartKind {
	switch {
	case f.snapshot:
		return innerdock.StartSnapshot
	case f.template != "":
		return innerdock.StartWarm
	}
	return innerdock.StartCold
}

// warmth finds the template for a sandbox. What is wrong with one is logged.
func (w *Worker) warmth(ctx context.Context, rec *store.Record, root string) warmth {
	if rec.Spec.Snapshot != "" {
		return warmth{template: w.snapshotDir(rec.Spec.Snapshot), snapshot: true}
	}
	if why := w.cold(rec); why != "" {
		return warmth{why: why}
	}
	found := warmth{key: w.layout(rec, root).key()}
	var err error
	found.template, err = w.templates.Find(ctx, found.key)
	switch {
	case err != nil:
		w.Logger.Error("a template is unusable and was discarded", "template", found.key, "error", err)
		found.why = fmt.Sprintf("its template was unusable and is discarded: %v", err)
	case found.template == "":
		found.why = "there is no template for it yet"
	}
	return found
}

// started notes that a sandbox's start is over, and asks for the template that
// it would have liked.
func (w *Worker) started(s *sandbox, rec store.Record) {
	s.started()
	if s.from.template != "" {
		s.filestores.Shed()
	}
	if s.from.key != "" && s.from.template == "" {
		w.maker.want(w.templateJob(s.from.key, rec))
	}
}

// distrust discards the template of a sandbox that could not be started from it,
// and returns what to start from instead.
func (w *Worker) distrust(ctx context.Context, from warmth, err error) warmth {
	w.Logger.Error("a sandbox could not be restored from its template, which is discarded", "template", from.key, "error", err)
	if failure := w.templates.Discard(ctx, from.key); failure != nil {
		w.Logger.Error("the template could not be discarded", "template", from.key, "error", failure)
	}
	return warmth{key: from.key, why: fmt.Sprintf("its template did not work and is discarded: %v", err)}
}
