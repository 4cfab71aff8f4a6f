package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/types"
)

// chain are the registries that are asked, one after the other: mirrors first,
// and at last the one whose word counts.
type chain []*upstream

// do asks until one has an answer. The error is that of the last: a mirror that
// lacks an image says nothing about it.
func (c chain) do(ctx context.Context, method, repository, path string, header http.Header) (*http.Response, error) {
	var err error
	for i, u := range c {
		var response *http.Response
		if response, err = u.do(ctx, i == len(c)-1, method, repository, path, header); err == nil {
			return response, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// last is the registry whose word counts, alone.
func (c chain) last() chain { return c[len(c)-1:] }

// host is what people call the registry whose word counts.
func (c chain) host() string { return c[len(c)-1].host() }

func (c chain) close() {
	for _, u := range c {
		u.close()
	}
}

var acceptManifests = http.Header{"Accept": {strings.Join([]string{
	string(types.OCIImageIndex), string(types.OCIManifestSchema1),
	string(types.DockerManifestList), string(types.DockerManifestSchema2),
}, ", ")}}

// digestOf asks what a tag means now; "" when upstream does not say.
func (c chain) digestOf(ctx context.Context, repository, tag string) (string, error) {
	response, err := c.do(ctx, http.MethodHead, repository, "manifests/"+tag, acceptManifests)
	if err != nil {
		return "", err
	}
	_ = response.Body.Close()
	return response.Header.Get("Docker-Content-Digest"), nil
}

// shows asks whether upstream shows a digest to the cache, in a repository.
func (c chain) shows(ctx context.Context, route route) error {
	response, err := c.do(ctx, http.MethodHead, route.repository, route.path(), acceptManifests)
	if err == nil {
		_ = response.Body.Close()
	}
	return err
}

// manifest fetches a manifest by tag or digest.
func (c chain) manifest(ctx context.Context, repository, reference string) (content []byte, claimed string, err error) {
	response, err := c.do(ctx, http.MethodGet, repository, "manifests/"+reference, acceptManifests)
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

// isRefusal tells an answer that something is not there for the public from no
// answer.
func isRefusal(err error) bool {
	var answer *statusError
	return errors.As(err, &answer) &&
		(answer.status == http.StatusNotFound || answer.status == http.StatusUnauthorized || answer.status == http.StatusForbidden)
}

// isClosed tells whether the refusal was one of the whole repository.
func isClosed(err error) bool {
	var answer *statusError
	return isRefusal(err) && errors.As(err, &answer) && (answer.status != http.StatusNotFound || answer.nameUnknown)
}
