package registry

import (
	"regexp"
	"strings"
)

var (
	nameForm   = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagForm    = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	digestForm = regexp.MustCompile(`^sha256:[a-f0-9]{64}$`)
)

// route is what a request asks for: a tag, or a digest, in a repository.
type route struct {
	repository  string // as Docker Hub knows it: library/nginx
	tag, digest string // one of them
	blob        bool
}

// name is what a user would call it.
func (r route) name() string {
	name := strings.TrimPrefix(r.repository, "library/")
	if r.digest != "" {
		return name + "@" + r.digest
	}
	return name + ":" + r.tag
}

// path is where a registry has it, in its repository.
func (r route) path() string {
	if r.blob {
		return "blobs/" + r.digest
	}
	return "manifests/" + r.tag + r.digest
}

// parsePath reads /v2/NAME/manifests/REFERENCE and /v2/NAME/blobs/DIGEST.
func parsePath(path string) (route, bool) {
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return route{}, false
	}
	rest, reference, ok := cutLast(rest)
	if !ok {
		return route{}, false
	}
	repository, kind, ok := cutLast(rest)
	if !ok || len(repository) > 255 || !nameForm.MatchString(repository) {
		return route{}, false
	}
	if !strings.Contains(repository, "/") {
		repository = "library/" + repository
	}
	found := route{repository: repository, blob: kind == "blobs"}
	switch {
	case kind != "blobs" && kind != "manifests":
		return route{}, false
	case digestForm.MatchString(reference):
		found.digest = reference
	case !found.blob && tagForm.MatchString(reference):
		found.tag = reference
	default:
		return route{}, false
	}
	return found, true
}

func cutLast(path string) (before, after string, ok bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", "", false
	}
	return path[:i], path[i+1:], true
}
