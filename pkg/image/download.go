package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/innerdock/innerdock"
)

// How a layer is pulled: attempts that brought nothing new are counted, and
// what came before a connection broke is not asked for again.
const (
	pullAttempts = 5
	firstPause   = 300 * time.Millisecond
	longestPause = 30 * time.Second
)

// errStatus is a status that may be another one soon.
type errStatus struct {
	status int
	after  time.Duration // for which the registry wants no requests
}

func (e *errStatus) Error() string { return "the registry answered " + strconv.Itoa(e.status) }

// layer pulls one layer, unless somebody else does it, or has done.
func (p *puller) layer(ctx context.Context, l layer) error {
	lock, err := lockFile(ctx, p.store.blobLock(filepath.Base(p.store.blobPath(l.Digest))), nil)
	if err != nil {
		return err
	}
	defer lock.unlock()
	if p.store.hasBlob(l) {
		p.done.Add(l.Size)
		return nil
	}
	blob, err := p.store.part(l)
	if err != nil {
		return err
	}
	p.done.Add(blob.size)
	err = p.persist(ctx, l, blob)
	if err == nil {
		defer blob.discard()
		return blob.commit(p.store)
	}
	if ctx.Err() != nil || again(err) {
		blob.leave()
	} else {
		blob.discard()
	}
	var coded *innerdock.Error
	var status *errStatus
	switch {
	case errors.As(err, &coded):
		return err
	case errors.As(err, &status):
		err = &transport.Error{StatusCode: status.status}
	}
	return remoteError(ctx, p.ref, fmt.Errorf("layer %s: %w", l.Digest, err))
}

// persist downloads until the blob is whole, with pauses that grow.
func (p *puller) persist(ctx context.Context, l layer, blob *blobWriter) error {
	pause := firstPause
	for attempt := 1; ; attempt++ {
		before := blob.size
		err := p.attempt(ctx, l, blob)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if blob.size > before {
			attempt, pause = 0, firstPause
		}
		if attempt >= pullAttempts || !again(err) {
			return err
		}
		p.store.log.Info("a layer is pulled again", "image", p.ref.Name(), "layer", l.Digest, "from", blob.size, "err", err)
		wait := pause + rand.N(pause/2)
		var status *errStatus
		if errors.As(err, &status) {
			wait = max(wait, min(status.after, longestPause))
		}
		pause = min(2*pause, longestPause)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// again reports whether trying again may help.
func again(err error) bool {
	code := innerdock.CodeOf(err)
	if code != innerdock.CodeInternal && code != innerdock.CodeUnavailable {
		return false
	}
	var answer *transport.Error
	return !errors.As(err, &answer) || answer.Temporary()
}

// attempt continues the blob where it ends.
func (p *puller) attempt(ctx context.Context, l layer, blob *blobWriter) error {
	if blob.size == l.Size && blob.digest() == l.Digest {
		return nil // only its commit was missing
	}
	body, err := p.open(ctx, l, blob)
	if err != nil {
		return err
	}
	guarded := newStallGuard(body, p.store.stallTime)
	defer guarded.Close()
	// One byte more than it should be, to see that it is too long.
	_, err = io.Copy(io.MultiWriter(blob, &counter{&p.done}), io.LimitReader(guarded, l.Size-blob.size+1))
	switch {
	case err != nil:
		return diskOr(err)
	case blob.size < l.Size && blob.digest() != l.Digest:
		return io.ErrUnexpectedEOF
	case blob.size == l.Size && blob.digest() == l.Digest:
		return nil
	}
	err = innerdock.Errorf(innerdock.CodeUnavailable, "the registry %s sent %s damaged: %d bytes with the digest %s instead of %d with %s; try again, or push the image again",
		p.ref.Context().RegistryStr(), p.ref.Name(), blob.size, blob.digest(), l.Size, l.Digest)
	return errors.Join(err, p.reset(blob))
}

// reset begins the blob anew.
func (p *puller) reset(blob *blobWriter) error {
	p.done.Add(-blob.size)
	return blob.reset()
}

// open asks for what the blob has not yet.
func (p *puller) open(ctx context.Context, l layer, blob *blobWriter) (io.ReadCloser, error) {
	client, err := p.client(ctx)
	if err != nil {
		return nil, err
	}
	repo := p.at.repo
	url := fmt.Sprintf("%s://%s/v2/%s/blobs/%s", repo.Scheme(), repo.RegistryStr(), repo.RepositoryStr(), l.Digest)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", userAgent)
	if blob.size > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", blob.size, l.Size-1)) // some registries want an end
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	from := fmt.Sprintf("bytes %d-%d/%d", blob.size, l.Size-1, l.Size)
	switch {
	case resp.StatusCode == http.StatusPartialContent && resp.Header.Get("Content-Range") == from:
		return resp.Body, nil
	case resp.StatusCode == http.StatusOK:
		if err := p.reset(blob); err != nil {
			_ = resp.Body.Close() // the first error tells
			return nil, err
		}
		return resp.Body, nil
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable, resp.StatusCode == http.StatusPartialContent:
		return nil, errors.Join(&errStatus{status: resp.StatusCode}, p.reset(blob)) // from the beginning, then
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == http.StatusRequestTimeout, resp.StatusCode >= 500:
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After")) // 0 if it is a date
		return nil, &errStatus{resp.StatusCode, time.Duration(min(seconds, 3600)) * time.Second}
	}
	err = transport.CheckError(resp, http.StatusOK)
	return nil, remoteError(ctx, p.ref, err)
}

// client is logged in to the registry, once for all layers.
func (p *puller) client(ctx context.Context) (*http.Client, error) {
	p.login.Lock()
	defer p.login.Unlock()
	if p.loggedIn != nil {
		return p.loggedIn, nil
	}
	auth := p.at.auth
	if auth == nil {
		var err error
		if auth, err = authn.Resolve(ctx, p.store.keychain, p.at.repo); err != nil {
			return nil, err
		}
	}
	// The context is that of the pull: it is used again when a token expires.
	login, err := transport.NewWithContext(p.ctx, p.at.repo.Registry, auth, p.store.transport, []string{p.at.repo.Scope(transport.PullScope)})
	if err != nil {
		return nil, err
	}
	p.loggedIn = &http.Client{Transport: login}
	return p.loggedIn, nil
}

// diskOr gives an error its code if the disk is full, and leaves others alone.
func diskOr(err error) error {
	if coded := diskError(err, "writing a layer"); innerdock.CodeOf(coded) == innerdock.CodeExhausted {
		return coded
	}
	return err
}

type counter struct{ n *atomic.Int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// stallGuard closes a response that has stopped coming.
type stallGuard struct {
	io.ReadCloser
	timer *time.Timer
	limit time.Duration
}

func newStallGuard(body io.ReadCloser, limit time.Duration) *stallGuard {
	return &stallGuard{body, time.AfterFunc(limit, func() { _ = body.Close() }), limit}
}

func (g *stallGuard) Read(p []byte) (int, error) {
	n, err := g.ReadCloser.Read(p)
	g.timer.Reset(g.limit)
	return n, err
}

func (g *stallGuard) Close() error {
	g.timer.Stop()
	return g.ReadCloser.Close()
}
