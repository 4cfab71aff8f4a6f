package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	dialTimeout    = 3 * time.Second
	headerTimeout  = 15 * time.Second
	unreachableFor = 30 * time.Second // how long a failure to reach upstream is remembered
	maxConnections = 32               // to upstream at once
	maxLogins      = 1024             // tokens kept, one for a repository
)

// upstream is the registry that is cached, asked anonymously. While it cannot be
// reached it says so at once.
type upstream struct {
	base      *url.URL
	registry  name.Registry
	transport *http.Transport

	mu     sync.Mutex
	logins map[string]http.RoundTripper // by repository
	retry  time.Time                    // when to try again after it was not reached
}

func newUpstream(base *url.URL) (*upstream, error) {
	var options []name.Option
	if base.Scheme == "http" {
		options = append(options, name.Insecure)
	}
	registry, err := name.NewRegistry(base.Host, options...)
	if err != nil {
		return nil, err
	}
	return &upstream{
		base: base, registry: registry, logins: map[string]http.RoundTripper{},
		transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
			ForceAttemptHTTP2:     true,
			TLSHandshakeTimeout:   2 * dialTimeout,
			ResponseHeaderTimeout: headerTimeout,
			MaxConnsPerHost:       maxConnections,
			MaxIdleConnsPerHost:   8,
			IdleConnTimeout:       time.Minute,
		},
	}, nil
}

func (u *upstream) host() string {
	if u.base.String() == DockerHub {
		return "Docker Hub"
	}
	return u.base.Host
}

func (u *upstream) close() { u.transport.CloseIdleConnections() }

// do sends a request for a path in a repository. The answer has the status 200
// or 206; any other is a *statusError, and errUnreachable says that there was
// none. ctx bounds the body too.
func (u *upstream) do(ctx context.Context, method, repository, path string, header http.Header) (*http.Response, error) {
	if u.away() {
		return nil, errUnreachable
	}
	response, err := u.send(ctx, method, repository, path, header)
	if err == nil {
		return response, nil
	}
	var answer *statusError
	if errors.As(err, &answer) {
		return nil, err
	}
	if errors.Is(ctx.Err(), context.Canceled) || !noAnswer(err) {
		return nil, err // our caller went away, or a connection was cut: that passes
	}
	u.mu.Lock()
	u.retry = time.Now().Add(unreachableFor)
	u.mu.Unlock()
	return nil, fmt.Errorf("%w: %w", errUnreachable, err)
}

// noAnswer tells whether upstream could not be reached, or did not answer in time.
func noAnswer(err error) bool {
	var lookup *net.DNSError
	var operation *net.OpError
	var timeout net.Error
	return errors.As(err, &lookup) ||
		(errors.As(err, &operation) && operation.Op == "dial") ||
		(errors.As(err, &timeout) && timeout.Timeout())
}

func (u *upstream) away() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return time.Now().Before(u.retry)
}

func (u *upstream) send(ctx context.Context, method, repository, path string, header http.Header) (*http.Response, error) {
	login, err := u.login(ctx, repository)
	if err != nil {
		return nil, asStatus(err)
	}
	target := *u.base
	target.Path = "/v2/" + repository + "/" + path
	request, err := http.NewRequestWithContext(ctx, method, target.String(), nil)
	if err != nil {
		return nil, err
	}
	for key, values := range header {
		request.Header[key] = values
	}
	response, err := (&http.Client{Transport: login}).Do(request)
	if err != nil {
		return nil, asStatus(err)
	}
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusPartialContent {
		_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 1<<16))
		_ = response.Body.Close()
		return nil, &statusError{response.StatusCode}
	}
	return response, nil
}

// asStatus finds the answer in an error of the token exchange.
func asStatus(err error) error {
	var answer *transport.Error
	if errors.As(err, &answer) {
		return &statusError{answer.StatusCode}
	}
	return err
}

// login returns a transport that holds a token for a repository.
func (u *upstream) login(ctx context.Context, repository string) (http.RoundTripper, error) {
	u.mu.Lock()
	known := u.logins[repository]
	u.mu.Unlock()
	if known != nil {
		return known, nil
	}
	scope := u.registry.Repo(strings.Split(repository, "/")...).Scope(transport.PullScope)
	fresh, err := transport.NewWithContext(ctx, u.registry, authn.Anonymous, u.transport, []string{scope})
	if err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.logins) >= maxLogins {
		clear(u.logins)
	}
	u.logins[repository] = fresh
	return fresh, nil
}

var acceptManifests = http.Header{"Accept": {strings.Join([]string{
	string(types.OCIImageIndex), string(types.OCIManifestSchema1),
	string(types.DockerManifestList), string(types.DockerManifestSchema2),
}, ", ")}}

// digestOf asks what a tag means now; "" when upstream does not say.
func (u *upstream) digestOf(ctx context.Context, repository, tag string) (string, error) {
	response, err := u.do(ctx, http.MethodHead, repository, "manifests/"+tag, acceptManifests)
	if err != nil {
		return "", err
	}
	_ = response.Body.Close()
	return response.Header.Get("Docker-Content-Digest"), nil
}

// manifest fetches a manifest by tag or digest.
func (u *upstream) manifest(ctx context.Context, repository, reference string) (content []byte, claimed string, err error) {
	response, err := u.do(ctx, http.MethodGet, repository, "manifests/"+reference, acceptManifests)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = response.Body.Close() }()
	content, err = io.ReadAll(io.LimitReader(response.Body, maxManifest+1))
	if err != nil {
		return nil, "", err
	}
	if len(content) > maxManifest {
		return nil, "", errTooLarge
	}
	return content, response.Header.Get("Docker-Content-Digest"), nil
}
