package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image/debian"
)

// Where a base came from, as Image.Source says it.
const (
	sourceRegistry = "registry"
	sourceDebian   = "debian"
)

// resolution is what a reference stands for. It is kept in refs/.
type resolution struct {
	Ref        string      `json:"ref"`    // such as index.docker.io/library/python:3.11
	Source     string      `json:"source"` // registry or debian
	Digest     string      `json:"digest"` // of the image's manifest; of Debian's inputs
	Debian     debian.Base `json:"debian,omitzero"`
	ResolvedAt time.Time   `json:"resolved_at"`

	auth  authn.Authenticator // the account that came with the request; never kept
	built string              // ID of the image that BuildKit made, and that this is; "": none
}

// identity is what the base's content follows from. What was had with somebody's
// account is apart from what everybody may have: it is given again only to who
// shows the registry an account that may have it.
func (r resolution) identity() string {
	if r.auth != nil {
		return r.Source + "+account@" + r.Digest
	}
	return r.Source + "@" + r.Digest
}

// resolve finds out what the plan's base stands for: as it is remembered, else
// from its registry, else from Debian's packages.
func (s *Store) resolve(ctx context.Context, p plan, say reporter) (resolution, error) {
	ref := p.base
	if p.auth != nil {
		digest, err := s.remoteDigest(ctx, ref, p.auth)
		return resolution{Ref: ref.Name(), Source: sourceRegistry, Digest: digest, auth: p.auth}, err
	}
	if d, ok := ref.(name.Digest); ok {
		return resolution{Ref: d.Name(), Source: sourceRegistry, Digest: d.DigestStr()}, nil
	}
	before, err := s.remembered(ref)
	if err != nil || before.Digest != "" && !p.refresh {
		return before, err
	}
	lock, err := s.lock(ctx, "ref-"+refKey(ref), nil)
	if err != nil {
		return resolution{}, err
	}
	defer lock.unlock()
	now, err := s.remembered(ref)
	if err != nil || now.Digest != "" && (!p.refresh || now.ResolvedAt != before.ResolvedAt) {
		return now, err // somebody else has just asked
	}
	r, err := s.look(ctx, ref, say)
	if err != nil {
		return resolution{}, err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return resolution{}, innerdock.Internal(err, "remembering an image reference")
	}
	return r, s.writeFile(s.refPath(ref), append(data, '\n'))
}

// known is resolve without asking anybody, but for whether an account may have
// the base.
func (s *Store) known(ctx context.Context, p plan) (resolution, bool, error) {
	if _, ok := p.base.(name.Digest); ok || p.auth != nil {
		r, err := s.resolve(ctx, p, newReporter(nil))
		return r, err == nil, err
	}
	r, err := s.remembered(p.base)
	return r, r.Digest != "", err
}

// look asks the registry, and falls back to Debian where nobody answers.
func (s *Store) look(ctx context.Context, ref name.Reference, say reporter) (resolution, error) {
	var offline error
	for _, at := range s.places(ref.Context(), nil) {
		if offline = s.probe(ctx, at.repo.Registry); offline == nil || ctx.Err() != nil {
			break
		}
	}
	if ctx.Err() != nil {
		return resolution{}, context.Cause(ctx)
	}
	if offline == nil {
		digest, err := s.remoteDigest(ctx, ref, nil)
		if err != nil {
			return resolution{}, err
		}
		say.progress("base", "%s is %s in its registry", ref.Name(), digest)
		return resolution{Ref: ref.Name(), Source: sourceRegistry, Digest: digest, ResolvedAt: time.Now().UTC()}, nil
	}
	base, ok := debianBase(ref)
	if !ok {
		return resolution{}, innerdock.Errorf(innerdock.CodeImageNotFound,
			"%s is not in the store, and its registry %s cannot be reached (%v); check the server's network. Without a registry it can make %s",
			ref.Name(), ref.Context().RegistryStr(), reason(offline), debian.Available)
	}
	key, err := s.debian.Key(base)
	if err != nil {
		return resolution{}, err
	}
	say.progress("base", "The registry %s cannot be reached (%v): using %s, made from Debian's packages, instead of %s",
		ref.Context().RegistryStr(), reason(offline), base.Name(), ref.Name())
	return resolution{Ref: ref.Name(), Source: sourceDebian, Digest: "sha256:" + key, Debian: base, ResolvedAt: time.Now().UTC()}, nil
}

func debianBase(ref name.Reference) (debian.Base, bool) {
	if ref.Context().RegistryStr() != name.DefaultRegistry {
		return debian.Base{}, false
	}
	return debian.Find(ref.Context().RepositoryStr(), ref.Identifier())
}

// remembered returns what a reference was resolved to before; its zero value
// if it never was. What Debian bases are made of is looked at again each time:
// the host may trust other certificate authorities now.
func (s *Store) remembered(ref name.Reference) (resolution, error) {
	data, err := os.ReadFile(s.refPath(ref))
	if errors.Is(err, fs.ErrNotExist) {
		return resolution{}, nil
	}
	if err != nil {
		return resolution{}, innerdock.Internal(err, "reading an image reference")
	}
	var r resolution
	if err := json.Unmarshal(data, &r); err != nil {
		return resolution{}, nil // written by another version: resolve again
	}
	if r.Source == sourceDebian {
		key, err := s.debian.Key(r.Debian)
		if err != nil {
			return resolution{}, err
		}
		r.Digest = "sha256:" + key
	}
	return r, nil
}

func (s *Store) refPath(ref name.Reference) string {
	return filepath.Join(s.dir, "refs", refKey(ref)+".json")
}

func refKey(ref name.Reference) string {
	sum := sha256.Sum256([]byte(ref.Name()))
	return hex.EncodeToString(sum[:])
}

// reason is a network error without the parts that say nothing to a user.
func reason(err error) string {
	s := err.Error()
	if i := strings.LastIndex(s, ": dial tcp"); i >= 0 {
		s = s[i+len(": "):]
	}
	return s
}
