package registry

import (
	"context"
	"time"
)

// What the cache holds it has got without an account of any sandbox, or with the
// operator's. It is served to all sandboxes, in the repositories in which
// upstream has shown it; a digest that is known from elsewhere opens nothing. A
// repository that upstream closes is closed here too, within publicFor.

// publicFor is how long upstream's word counts that a repository is public.
// Every pull by tag renews it.
const publicFor = 10 * time.Minute

// maxPublic bounds how many repositories are remembered.
const maxPublic = 4096

// permit tells whether a stored digest may be served in a repository. Where
// upstream has no answer, what it said last counts.
func (c *Cache) permit(ctx context.Context, route route) error {
	granted, seeded := c.store.granted(route.repository, route.digest)
	if seeded || (granted && c.isPublic(route.repository)) {
		return nil
	}
	result := c.checks.DoChan(route.repository+"/"+route.path(), func() (any, error) {
		if !c.work.begin() {
			return nil, errClosed
		}
		defer c.work.group.Done()
		ctx, cancel := context.WithTimeout(c.ctx, revalidateTimeout)
		defer cancel()
		return nil, c.upstream.shows(ctx, route)
	})
	var err error
	select {
	case got := <-result:
		err = got.Err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	switch {
	case err == nil:
		c.shown(route.repository, route.digest)
		return nil
	case isRefusal(err):
		c.refused(route, err)
		return err
	case granted:
		return nil
	}
	return err
}

// shown notes that upstream has just shown a digest in a repository.
func (c *Cache) shown(repository, digest string) {
	c.store.grant(repository, digest)
	c.publicMu.Lock()
	defer c.publicMu.Unlock()
	if len(c.public) >= maxPublic {
		clear(c.public)
	}
	c.public[repository] = time.Now()
}

// refused notes that upstream does not show something any more. What else it has
// shown in that repository is asked for again before it is served.
func (c *Cache) refused(route route, err error) {
	switch {
	case isClosed(err):
		c.store.revoke(route.repository, "")
	case route.digest != "":
		c.store.revoke(route.repository, route.digest)
	}
	if route.tag != "" || isClosed(err) {
		if err := c.store.untagPulled(route, isClosed(err)); err != nil {
			c.complain("a tag was not removed", "image", route.name(), "error", err)
		}
	}
	c.publicMu.Lock()
	defer c.publicMu.Unlock()
	delete(c.public, route.repository)
}

func (c *Cache) isPublic(repository string) bool {
	c.publicMu.Lock()
	defer c.publicMu.Unlock()
	return time.Since(c.public[repository]) < publicFor
}
