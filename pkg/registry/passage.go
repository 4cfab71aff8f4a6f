package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"net/http"
	"time"
)

// passage is a blob on its way from upstream to one client, without the store:
// what is too large for it, or what its disk has no room for. The last byte comes
// only when the digest was right.
type passage struct {
	ctx    context.Context
	cache  *Cache
	route  route
	size   int64
	offset int64 // of the next byte for the client

	body   io.ReadCloser
	cancel context.CancelFunc
	stall  *time.Timer
	sum    hash.Hash
	passed int64 // bytes that have come from body
}

// pass asks upstream for a blob. The caller closes the passage.
func (c *Cache) pass(ctx context.Context, route route) (*passage, error) {
	p := &passage{ctx: ctx, cache: c, route: route}
	if err := p.begin(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *passage) begin() error {
	p.close()
	ctx, cancel := context.WithCancel(p.ctx)
	response, err := p.cache.upstream.do(ctx, http.MethodGet, p.route.repository, p.route.path(), nil) //nolint:bodyclose // p.close does it
	if err != nil {
		cancel()
		return err
	}
	p.body, p.cancel, p.sum, p.passed = response.Body, cancel, sha256.New(), 0
	p.stall = time.AfterFunc(stallTimeout, cancel)
	if response.ContentLength < 0 {
		p.close()
		return errors.New("upstream does not tell its size")
	}
	p.size = response.ContentLength
	return nil
}

// Read implements io.Reader.
func (p *passage) Read(b []byte) (int, error) {
	if p.offset >= p.size {
		return 0, io.EOF
	}
	if p.offset < p.passed {
		if err := p.begin(); err != nil {
			return 0, err
		}
	}
	for p.passed < p.offset {
		if _, err := p.next(b[:min(int64(len(b)), p.offset-p.passed)]); err != nil {
			return 0, err
		}
	}
	n, err := p.next(b)
	p.offset += int64(n)
	return n, err
}

// next reads from upstream; with the last byte it checks the whole.
func (p *passage) next(b []byte) (int, error) {
	n, err := p.body.Read(b)
	p.stall.Reset(stallTimeout)
	p.sum.Write(b[:n])
	p.passed += int64(n)
	if p.passed < p.size {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return n, err
	}
	if "sha256:"+hex.EncodeToString(p.sum.Sum(nil)) != p.route.digest {
		return 0, errDigest
	}
	return n, nil
}

// Seek implements io.Seeker.
func (p *passage) Seek(offset int64, whence int) (int64, error) {
	return seek(&p.offset, p.size, offset, whence)
}

func (p *passage) close() {
	if p.body == nil {
		return
	}
	p.stall.Stop()
	p.cancel()
	_ = p.body.Close()
	p.body = nil
}
