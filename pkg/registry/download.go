package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	maxDownloads = 64 // at once
	maxAttempts  = 4  // of one download; each goes on where the one before was cut
	viaMirrors   = 2  // of them; then mirrors that cut it are left out
	retryPause   = 200 * time.Millisecond
	stallTimeout = 30 * time.Second // without a byte
	chunk        = 128 << 10
	reserveStep  = 8 << 20 // of the store, where upstream does not tell a size
)

// downloads are the blobs on their way. All who ask for one in a repository follow
// the same download, and see its bytes as they come.
type downloads struct {
	cache *Cache
	slots chan struct{}

	mu      sync.Mutex
	running map[route]*download
}

func (d *downloads) init(c *Cache) {
	d.cache, d.slots, d.running = c, make(chan struct{}, maxDownloads), map[route]*download{}
}

// download is one blob on its way into a temporary file.
type download struct {
	route  route
	file   *os.File // written by run only
	copied *os.File // the same, for the followers; the last one closes it
	sum    hash.Hash
	room   int64 // reserved in the store
	cancel context.CancelFunc

	followers int // of downloads.mu

	mu      sync.Mutex
	changed chan struct{} // closed at the next change of what follows
	size    int64         // of the whole blob; -1 while it is not known
	written int64         // bytes that followers may read
	done    bool          // all is there, or err says why not
	err     error
}

// follow joins the download of a blob, or begins it. It returns when the size is
// known. The caller closes the follower; a download that nobody follows ends.
func (d *downloads) follow(ctx context.Context, route route) (*follower, error) {
	one, err := d.join(route)
	if err != nil {
		return nil, err
	}
	f := &follower{ctx: ctx, download: one, downloads: d}
	if f.size, err = one.awaitSize(ctx); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (d *downloads) join(route route) (*download, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if one := d.running[route]; one != nil {
		one.followers++
		return one, nil
	}
	file, err := d.cache.store.temp()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errStore, err)
	}
	copied, err := os.Open(file.Name())
	if err != nil {
		discard(file)
		return nil, fmt.Errorf("%w: %w", errStore, err)
	}
	if !d.cache.work.begin() {
		_ = copied.Close()
		discard(file)
		return nil, errClosed
	}
	ctx, cancel := context.WithCancel(d.cache.ctx)
	one := &download{
		route: route, file: file, copied: copied, sum: sha256.New(), cancel: cancel,
		followers: 1, changed: make(chan struct{}), size: -1,
	}
	d.running[route] = one
	go func() {
		defer d.cache.work.group.Done()
		defer cancel()
		d.run(ctx, one)
	}()
	return one, nil
}

// leave ends a download that nobody follows any more.
func (d *downloads) leave(one *download) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if one.followers--; one.followers == 0 {
		one.cancel()
		d.remove(one)
		_ = one.copied.Close()
	}
}

// remove lets the next request begin afresh. Call with mu held.
func (d *downloads) remove(one *download) {
	if d.running[one.route] == one {
		delete(d.running, one.route)
	}
}

// run fetches, checks and stores one blob, and tells its followers.
func (d *downloads) run(ctx context.Context, one *download) {
	err := d.fetch(ctx, one)
	if err != nil {
		discard(one.file)
	} else if err = d.cache.store.commit(one.file, one.route.digest); err != nil {
		err = fmt.Errorf("%w: %w", errStore, err)
	} else {
		d.cache.downloaded.Add(1)
		d.cache.shown(one.route.repository, one.route.digest)
	}
	d.cache.store.release(one.room)
	switch {
	case isRefusal(err):
		d.cache.refused(one.route, err)
	case errors.Is(err, errStore):
		d.cache.complain("a blob is passed through, it was not stored", "image", one.route.name(), "error", err)
	}
	d.mu.Lock()
	d.remove(one)
	d.mu.Unlock()
	one.finish(err)
}

func (d *downloads) fetch(ctx context.Context, one *download) error {
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for attempt := 1; ; attempt++ {
		from := d.cache.upstream
		if attempt > viaMirrors {
			from = from.last()
		}
		err := d.attempt(ctx, one, from)
		if err == nil {
			break
		}
		if attempt == maxAttempts || !worthRepeating(err) || !pause(ctx, time.Duration(attempt)*retryPause) {
			return err
		}
		d.cache.log.Info("image cache: a download was cut, going on",
			"image", one.route.name(), "received", one.received(), "error", err)
	}
	if "sha256:"+hex.EncodeToString(one.sum.Sum(nil)) != one.route.digest {
		return errDigest
	}
	return nil
}

// worthRepeating tells the faults that pass from those that stay.
func worthRepeating(err error) bool {
	var answer *statusError
	if errors.As(err, &answer) {
		return answer.status >= http.StatusInternalServerError
	}
	return !errors.Is(err, errUnreachable) && !errors.Is(err, errStore)
}

// pause waits, and tells whether ctx still lives.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// attempt asks for the bytes that are still missing.
func (d *downloads) attempt(ctx context.Context, one *download, from chain) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	header, offset, size := http.Header{}, one.received(), one.total()
	if offset == size {
		return nil // cut after the last byte
	}
	if offset > 0 && size >= 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, size-1))
	}
	response, err := from.do(ctx, http.MethodGet, one.route.repository, "blobs/"+one.route.digest, header)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if offset == 0 && response.ContentLength >= 0 {
		if err := d.ensure(one, response.ContentLength); err != nil {
			return err
		}
	}
	if response.StatusCode == http.StatusPartialContent &&
		!strings.HasPrefix(response.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", offset)) {
		return errors.New("upstream sent another range than was asked for")
	}
	stall := time.AfterFunc(stallTimeout, cancel)
	defer stall.Stop()
	body := &watched{response.Body, stall}
	switch {
	case offset == 0:
		one.announce(response.ContentLength)
	case response.StatusCode == http.StatusOK: // no ranges there: all of it again
		if _, err := io.CopyN(io.Discard, body, offset); err != nil {
			return err
		}
	}
	return d.copy(one, body)
}

// ensure reserves room in the store for a blob of a size.
func (d *downloads) ensure(one *download, size int64) error {
	if size <= one.room {
		return nil
	}
	if err := d.cache.store.reserve(size - one.room); err != nil {
		return fmt.Errorf("%w: %w", errStore, err)
	}
	one.room = size
	return nil
}

// watched is a body whose stall timer starts again with every read.
type watched struct {
	io.Reader
	stall *time.Timer
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	w.stall.Reset(stallTimeout)
	return n, err
}

// copy appends what comes. The last byte of a blob is shown to followers only
// when its digest was right, so nobody gets a whole wrong one.
func (d *downloads) copy(one *download, body io.Reader) error {
	buffer := make([]byte, chunk)
	for {
		n, err := body.Read(buffer)
		if n > 0 {
			if needed := one.received() + int64(n); needed > one.room {
				if err := d.ensure(one, needed+reserveStep); err != nil {
					return err
				}
			}
			if _, err := one.file.Write(buffer[:n]); err != nil {
				return fmt.Errorf("%w: %w", errStore, err)
			}
			one.sum.Write(buffer[:n])
			one.advance(int64(n))
		}
		if err == io.EOF {
			return one.complete()
		}
		if err != nil {
			return err
		}
	}
}

func (one *download) change(apply func()) {
	one.mu.Lock()
	defer one.mu.Unlock()
	apply()
	close(one.changed)
	one.changed = make(chan struct{})
}

func (one *download) announce(size int64) { one.change(func() { one.size = size }) }
func (one *download) advance(n int64)     { one.change(func() { one.written += n }) }

func (one *download) finish(err error) {
	one.change(func() {
		one.done, one.err = true, err
		one.size = max(one.size, one.written) // where upstream did not tell it
	})
}

func (one *download) received() int64 {
	one.mu.Lock()
	defer one.mu.Unlock()
	return one.written
}

func (one *download) total() int64 {
	one.mu.Lock()
	defer one.mu.Unlock()
	return one.size
}

// complete tells whether an end was the end.
func (one *download) complete() error {
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.size >= 0 && one.written < one.size {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// awaitSize waits until the size is known: from upstream's header, or else from
// the whole blob.
func (one *download) awaitSize(ctx context.Context) (int64, error) {
	for {
		one.mu.Lock()
		size, err, changed := one.size, one.err, one.changed
		one.mu.Unlock()
		if err != nil {
			return 0, err
		}
		if size >= 0 {
			return size, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// await waits for bytes past offset, and returns how far a follower may read.
func (one *download) await(ctx context.Context, offset int64) (int64, error) {
	for {
		one.mu.Lock()
		readable, done, err, changed := one.written, one.done, one.err, one.changed
		one.mu.Unlock()
		if err != nil {
			return 0, err
		}
		if !done {
			readable-- // the last byte waits for the digest
		}
		if offset < readable || done {
			return readable, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// follower reads a download from its beginning, as fast as it comes.
type follower struct {
	ctx       context.Context
	download  *download
	downloads *downloads
	size      int64
	offset    int64
	instead   *passage // once the download has failed for want of room
}

// Read implements io.Reader; it waits for bytes.
func (f *follower) Read(p []byte) (int, error) {
	if f.offset >= f.size {
		return 0, io.EOF
	}
	n, err := f.read(p)
	f.offset += int64(n)
	return n, err
}

func (f *follower) read(p []byte) (int, error) {
	readable, err := f.download.await(f.ctx, f.offset)
	switch {
	case errors.Is(err, errStore):
		return f.passOn(p)
	case err != nil:
		return 0, err
	case f.offset >= readable:
		return 0, io.ErrUnexpectedEOF
	}
	n, err := f.download.copied.ReadAt(p[:min(int64(len(p)), readable-f.offset)], f.offset)
	if n > 0 {
		err = nil
	}
	return n, err
}

// passOn goes on where the store could not.
func (f *follower) passOn(p []byte) (int, error) {
	if f.instead == nil {
		passing, err := f.downloads.cache.pass(f.ctx, f.download.route)
		if err != nil {
			return 0, err
		}
		f.instead = passing
	}
	if _, err := f.instead.Seek(f.offset, io.SeekStart); err != nil {
		return 0, err
	}
	return f.instead.Read(p)
}

// Seek implements io.Seeker.
func (f *follower) Seek(offset int64, whence int) (int64, error) {
	return seek(&f.offset, f.size, offset, whence)
}

// seek moves a position in a blob of a size.
func seek(position *int64, size, offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += *position
	case io.SeekEnd:
		offset += size
	}
	if offset < 0 {
		return 0, errors.New("seek before the beginning")
	}
	*position = offset
	return offset, nil
}

func (f *follower) close() {
	if f.instead != nil {
		f.instead.close()
	}
	f.downloads.leave(f.download)
}
