package worker

import (
	"cmp"
	"context"
	_ "embed"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/wire"
	"github.com/innerdock/innerdock/pkg/image"
	"github.com/innerdock/innerdock/pkg/worker/pipcache"
)

// pipScript puts pip's cache together inside of a sandbox, and names what is new in it.
//
//go:embed pip.py
var pipScript string

const (
	// pipLent is where a sandbox finds the files of its tenant, below its control
	// directory, and pipDir where it has its cache: on its own disk, and in no layer.
	pipLent = "pip"
	pipDir  = "/tmp/.innerdock-pip"
	// pipTime is what the cache of one build may cost at its end.
	pipTime = time.Minute
	// maxPipList caps the list of what is new, in bytes.
	maxPipList = 4 << 20
	// pipTrim is how often old files are looked for.
	pipTrim = time.Hour
)

// pipUse is the cache of pip in one sandbox, while it makes a part of an image. A
// failure in it is none of the build's.
type pipUse struct {
	*sandbox
	cache  *pipcache.Store
	lent   string // directory of the host
	tenant string
	begun  bool
}

// pipUse returns the use of a tenant's cache in a sandbox; nil without a cache.
func (w *Worker) pipUse(s *sandbox, tenant string) *pipUse {
	if tenant == "" || w.PipCache == 0 {
		return nil
	}
	return &pipUse{sandbox: s, cache: w.pip, lent: filepath.Join(w.controlDir(s.id), pipLent), tenant: tenant}
}

// step returns a step with the cache if it is pip's.
func (p *pipUse) step(ctx context.Context, step image.Step) image.Step {
	if p == nil {
		return step
	}
	cached, ok := step.WithCache(pipDir)
	if ok && !p.begun {
		p.begun = true
		err := p.cache.Lend(p.tenant, p.lent)
		if err == nil {
			_, err = p.script(ctx, "lend", path.Join(wire.ControlDir, pipLent), pipDir)
		}
		if err != nil {
			p.log.Warn("pip has not all of its cache", "error", err)
		}
	}
	return cached
}

// keep keeps what pip has got since.
func (p *pipUse) keep(ctx context.Context) {
	if p == nil || !p.begun || ctx.Err() != nil {
		return
	}
	began, files := time.Now(), 0
	ctx, cancel := context.WithTimeout(ctx, pipTime)
	defer cancel()
	list, err := p.script(ctx, "new", pipDir)
	for name := range strings.SplitSeq(list, "\n") {
		if ctx.Err() != nil || freeDisk(p.lent) < hostReserve {
			break
		}
		if !pipcache.Path(name) {
			continue
		}
		files++
		err = cmp.Or(p.keepFile(ctx, name), err) // the others may be sound
	}
	p.log.Debug("pip's cache", "new", files, "seconds", time.Since(began).Seconds(), "error", err)
}

func (p *pipUse) keepFile(ctx context.Context, name string) error {
	content, err := p.agent.readFile(ctx, path.Join(pipDir, name))
	if err != nil {
		return err
	}
	defer func() { _ = content.Close() }()
	return p.cache.Keep(p.tenant, name, content)
}

// script runs the script with the Python that pip is of, and returns what it says.
func (p *pipUse) script(ctx context.Context, args ...string) (string, error) {
	var said strings.Builder
	listen := func(out []byte) {
		if said.Len()+len(out) <= maxPipList {
			said.Write(out)
		}
	}
	code, err := p.agent.execute(ctx, innerdock.ProcessSpec{Args: append([]string{"python3", "-I", "-c", pipScript}, args...), Cwd: "/"}, listen, func([]byte) {})
	if err == nil && code != 0 {
		err = innerdock.Errorf(innerdock.CodeUnsupported, "python3 ended with code %d", code)
	}
	return said.String(), err
}

// trimPip removes what is old in the caches, until the worker closes.
func (w *Worker) trimPip() {
	tick := time.NewTicker(pipTrim)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := w.pip.Trim(w.ctx); err != nil {
				w.Logger.Error("old files of pip's could not be removed", "error", err)
			}
		case <-w.ctx.Done():
			return
		}
	}
}
