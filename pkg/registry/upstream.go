package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

const (
	dialTimeout    = 3 * time.Second
	headerTimeout  = 15 * time.Second
	unreachableFor = 30 * time.Second // how long a failure to reach upstream is remembered
	maxConnections = 128              // to upstream at once
	maxLogins      = 1024             // tokens kept, one for a repository
	maxRedirects   = 5

	defaultQuotaWait = 2 * time.Second // after a 429 that does not say how long
	maxQuotaWait     = 5 * time.Second // for which a request waits; a longer one is refused
	maxQuotaMemory   = time.Hour
)

// upstream is a registry that is cached. While it cannot be reached, or refuses
// more requests for a time, it says so at once.
type upstream struct {
	base      *url.URL
	registry  name.Registry
	auth      authn.Authenticator
	transport *http.Transport

	mu      sync.Mutex
	logins  map[string]http.RoundTripper // by repository
	retry   time.Time                    // when to try again after it was not reached
	limited time.Time                    // until when it wants no requests
}

func newUpstream(address string, keys authn.Keychain) (*upstream, error) {
	base, err := url.Parse(address)
	if err != nil || base.Host == "" || (base.Scheme != "https" && base.Scheme != "http") || strings.Trim(base.Path, "/") != "" || base.User != nil {
		return nil, errors.New("it is not of the form https://host")
	}
	var options []name.Option
	if base.Scheme == "http" {
		options = append(options, name.Insecure)
	}
	registry, err := name.NewRegistry(base.Host, options...)
	if err != nil {
		return nil, err
	}
	auth, err := keys.Resolve(registry)
	if err != nil {
		return nil, err
	}
	return &upstream{
		base: base, registry: registry, auth: auth, logins: map[string]http.RoundTripper{},
		transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
			ForceAttemptHTTP2:     true,
			TLSHandshakeTimeout:   2 * dialTimeout,
			ResponseHeaderTimeout: headerTimeout,
			MaxConnsPerHost:       maxConnections,
			MaxIdleConnsPerHost:   8,
			IdleConnTimeout:       time.Minute,
			DisableCompression:    true, // what is asked for by digest is wanted as it is
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
// none. ctx bounds the body too. patient is to wait while upstream wants no
// requests, if that ends soon.
func (u *upstream) do(ctx context.Context, patient bool, method, repository, path string, header http.Header) (*http.Response, error) {
	if u.away() {
		return nil, errUnreachable
	}
	for again := !patient; ; again = true {
		if err := u.awaitQuota(ctx, patient); err != nil {
			return nil, err
		}
		response, err := u.send(ctx, method, repository, path, header)
		if err == nil {
			return response, nil
		}
		var answer *statusError
		if !errors.As(err, &answer) {
			return nil, u.noteAbsence(ctx, err)
		}
		if answer.status == http.StatusTooManyRequests {
			u.noteLimit(answer.after)
		}
		if answer.status != http.StatusTooManyRequests || again {
			return nil, err
		}
	}
}

// noteAbsence remembers that upstream was not reached, if that is what err says.
func (u *upstream) noteAbsence(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) || !noAnswer(err) {
		return err // our caller went away, or a connection was cut: that passes
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.retry = time.Now().Add(unreachableFor)
	return fmt.Errorf("%w: %w", errUnreachable, err)
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

// noteLimit remembers that upstream wants no request for a while.
func (u *upstream) noteLimit(wait time.Duration) {
	if wait <= 0 {
		wait = defaultQuotaWait
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.limited = time.Now().Add(min(wait, maxQuotaMemory))
}

// quota is how long upstream wants no requests still.
func (u *upstream) quota() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	return time.Until(u.limited)
}

// awaitQuota waits until upstream wants requests again, if that is soon.
func (u *upstream) awaitQuota(ctx context.Context, patient bool) error {
	wait := u.quota()
	if wait <= 0 {
		return nil
	}
	if deadline, ok := ctx.Deadline(); !patient || wait > maxQuotaWait || (ok && time.Until(deadline) < wait) || !pause(ctx, wait) {
		return &statusError{status: http.StatusTooManyRequests, after: wait}
	}
	return nil
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
	response, err := (&http.Client{Transport: login, CheckRedirect: checkRedirect}).Do(request)
	if err != nil {
		return nil, asStatus(err)
	}
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusPartialContent {
		defer func() { _ = response.Body.Close() }()
		body, _ := io.ReadAll(io.LimitReader(response.Body, 1<<16))
		if response.StatusCode == http.StatusUnauthorized || response.StatusCode == http.StatusForbidden {
			u.logout(repository)
		}
		return nil, &statusError{
			status: response.StatusCode, after: retryAfter(response.Header.Get("Retry-After")),
			nameUnknown: strings.Contains(string(body), codeNameUnknown),
		}
	}
	return response, nil
}

// checkRedirect follows a registry to where it keeps its blobs, and not from
// https to a connection that anybody may read.
func checkRedirect(request *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return errors.New("upstream redirects without end")
	}
	if via[0].URL.Scheme == "https" && request.URL.Scheme != "https" {
		return errors.New("upstream redirects from https to " + request.URL.Scheme)
	}
	return nil
}

// retryAfter reads the header of that name: seconds, or a date; 0 when it says nothing.
func retryAfter(value string) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(value); err == nil {
		return time.Until(date)
	}
	return 0
}

// asStatus finds the answer in an error of the token exchange.
func asStatus(err error) error {
	var answer *transport.Error
	if errors.As(err, &answer) {
		return &statusError{status: answer.StatusCode}
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
	fresh, err := transport.NewWithContext(ctx, u.registry, u.auth, u.transport, []string{scope})
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

// logout forgets a token that was refused, so that names which nobody may read
// take no place.
func (u *upstream) logout(repository string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.logins, repository)
}
