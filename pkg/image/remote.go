package image

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/innerdock/innerdock"
)

// newTransport is how registries are reached: as Go's default, proxies from
// the environment included, but never to a link-local address. Those are not
// registries, and a cloud's metadata service lives there.
func newTransport() http.RoundTripper {
	dialer := &net.Dialer{Timeout: 10 * time.Second, Control: denyLinkLocal}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer.DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       30 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
	}
}

func denyLinkLocal(_, address string, _ syscall.RawConn) error {
	addr, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if ip := addr.Addr().Unmap(); ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() {
		return fmt.Errorf("%s is no address of a registry", ip)
	}
	return nil
}

// probe returns why nobody answers at the registry, or nil when somebody does,
// whatever the answer.
func (s *Store) probe(ctx context.Context, registry name.Registry) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.probeTime, fmt.Errorf("no answer within %v", s.probeTime))
	defer cancel()
	url := registry.Scheme() + "://" + registry.RegistryStr() + "/v2/"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := s.transport.RoundTrip(req)
	if err == nil {
		_ = resp.Body.Close() // the status was the answer
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if unreachable(err) {
		return err
	}
	return nil
}

// unreachable reports whether err means that no registry answered at all.
func unreachable(err error) bool {
	var op *net.OpError
	var dns *net.DNSError
	var timeout interface{ Timeout() bool }
	var alert tls.AlertError
	switch {
	case errors.As(err, &alert):
		return false
	case errors.As(err, &dns), errors.As(err, &op):
		return true
	case errors.As(err, &timeout):
		return timeout.Timeout()
	}
	return false
}

// place is where an image may be had: at a mirror, or at its own registry.
type place struct {
	repo name.Repository
	auth authn.Authenticator // nil: what the server knows
}

// places are where an image may be had, in the order in which they are asked.
// The account that came with a request is for the image's own registry alone.
func (s *Store) places(repo name.Repository, auth authn.Authenticator) []place {
	var all []place
	for _, mirror := range s.mirrors[repo.RegistryStr()] {
		at := repo
		at.Registry = mirror
		all = append(all, place{repo: at})
	}
	return append(all, place{repo: repo, auth: auth})
}

func (s *Store) remoteOptions(ctx context.Context, at place) []remote.Option {
	auth := remote.WithAuthFromKeychain(s.keychain)
	if at.auth != nil {
		auth = remote.WithAuth(at.auth)
	}
	return []remote.Option{
		remote.WithContext(ctx),
		remote.WithTransport(s.transport),
		auth,
		remote.WithPlatform(platform),
		remote.WithUserAgent(userAgent),
		remote.WithRetryBackoff(remote.Backoff{Duration: 300 * time.Millisecond, Factor: 2, Jitter: 0.1, Steps: 4}),
		remote.WithRetryStatusCodes(http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout),
	}
}

const userAgent = "innerdock"

// remoteDigest resolves a tag to the digest of this platform's manifest.
func (s *Store) remoteDigest(ctx context.Context, ref name.Reference, auth authn.Authenticator) (string, error) {
	img, _, err := s.remoteImage(ctx, ref, ref.Identifier(), auth)
	if err != nil {
		return "", err
	}
	digest, err := img.Digest()
	if err != nil {
		return "", remoteError(ctx, ref, err)
	}
	return digest.String(), nil
}

// remoteImage returns an image by its tag or digest, and where it is.
func (s *Store) remoteImage(ctx context.Context, ref name.Reference, identifier string, auth authn.Authenticator) (img v1.Image, at place, err error) {
	for _, at = range s.places(ref.Context(), auth) {
		var pinned name.Reference = at.repo.Tag(identifier)
		if strings.Contains(identifier, ":") {
			pinned = at.repo.Digest(identifier)
		}
		if img, err = remote.Image(pinned, s.remoteOptions(ctx, at)...); err == nil || ctx.Err() != nil {
			break
		}
		if at.repo.Registry != ref.Context().Registry {
			s.log.Info("a mirror does not have an image", "mirror", at.repo.RegistryStr(), "image", ref.Name(), "err", err)
		}
	}
	if err != nil {
		return nil, place{}, remoteError(ctx, ref, err)
	}
	return img, at, nil
}

// remoteError turns a registry's answer into an error for people.
func remoteError(ctx context.Context, ref name.Reference, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var coded *innerdock.Error
	if errors.As(err, &coded) {
		return err
	}
	var answer *transport.Error
	if !errors.As(err, &answer) {
		if unreachable(err) {
			return innerdock.Errorf(innerdock.CodeUnavailable, "the registry %s does not answer any more (%v); try again", ref.Context().RegistryStr(), reason(err))
		}
		if errors.Is(err, remote.ErrSchema1) {
			return innerdock.Errorf(innerdock.CodeUnsupported, "%s is in Docker's old format (schema 1); push it again with a current Docker", ref.Name())
		}
		if strings.Contains(err.Error(), "no child with platform") {
			return innerdock.Errorf(innerdock.CodeImageNotFound, "%s has no variant for linux/%s; choose another image", ref.Name(), runtime.GOARCH)
		}
		return innerdock.Errorf(innerdock.CodeUnavailable, "%s cannot be pulled: %w", ref.Name(), err)
	}
	switch answer.StatusCode {
	case http.StatusNotFound:
		return innerdock.Errorf(innerdock.CodeImageNotFound, "the registry %s has no image %s for linux/%s; check the name and the tag", ref.Context().RegistryStr(), ref.Name(), runtime.GOARCH)
	case http.StatusUnauthorized, http.StatusForbidden:
		return innerdock.Errorf(innerdock.CodeUnauthorized, "the registry %s refuses %s: it does not exist, or it is private; check the name, or run `docker login %s` as the server's user", ref.Context().RegistryStr(), ref.Name(), ref.Context().RegistryStr())
	case http.StatusTooManyRequests:
		return innerdock.Errorf(innerdock.CodeUnavailable, "the registry %s does not give %s: it has had too many requests from here; try again later, or log in with `docker login`", ref.Context().RegistryStr(), ref.Name())
	}
	return innerdock.Errorf(innerdock.CodeUnavailable, "the registry %s answered %s with status %d; try again", ref.Context().RegistryStr(), ref.Name(), answer.StatusCode)
}
