package image

import (
	"context"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"

	"github.com/innerdock/innerdock"
)

// Offer returns a base for those who cannot have it from a registry, under the name
// that they know: one of Docker Hub's own images, which are everybody's, that the store
// holds or that Debian's packages make, which may take a minute. The image can be
// read until release is called. Errors: CodeImageNotFound.
func (s *Store) Offer(ctx context.Context, ref string) (img v1.Image, release func(), err error) {
	def := innerdock.ImageDefinition{BaseImage: ref}
	p, err := newPlan(def)
	if err != nil {
		return nil, nil, err
	}
	known, err := s.remembered(p.base)
	if err != nil {
		return nil, nil, err
	}
	_, tag := p.base.(name.Tag)
	_, made := debianBase(p.base)
	if at := p.base.Context(); !tag || at.RegistryStr() != name.DefaultRegistry || !strings.HasPrefix(at.RepositoryStr(), "library/") || !made && known.Digest == "" {
		return nil, nil, innerdock.Errorf(innerdock.CodeImageNotFound, "%s is not to be had here", ref)
	}
	built, err := s.Build(ctx, def, nil)
	if err != nil {
		return nil, nil, err
	}
	_, artifact, release, err := s.open(built.ID)
	if err != nil {
		return nil, nil, err
	}
	if img, err = partial.CompressedToImage(artifact); err != nil {
		release()
		return nil, nil, innerdock.Internal(err, "reading an image")
	}
	return img, release, nil
}
