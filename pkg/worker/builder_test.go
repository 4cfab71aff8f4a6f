package worker

import (
	"context"
	"errors"
	"testing"
)

// Builds wait for others: of their tenant when that has two, of all when there are four.
func TestBuildsQueue(t *testing.T) {
	w := &Worker{builders: builders{slots: make(chan struct{}, maxBuilds), of: map[string]*tenantBuilds{}}}
	var ends []func()
	begin := func(tenant string) {
		t.Helper()
		end, err := w.queue(t.Context(), w.builders.tenant(tenant), func() { t.Errorf("a build of %s waits", tenant) })
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, end)
	}
	waits := func(tenant string) {
		t.Helper()
		ctx, cancel := context.WithCancelCause(t.Context())
		left := errors.New("the client has left")
		if _, err := w.queue(ctx, w.builders.tenant(tenant), func() { cancel(left) }); !errors.Is(err, left) {
			t.Errorf("a build of %s that has to wait until its client leaves: %v", tenant, err)
		}
	}
	begin("one")
	begin("one")
	waits("one")
	begin("two")
	begin("two")
	waits("three")
	ends[0]()
	begin("three")
	waits("one")
	ends[2]()
	begin("one")
	waits("three")
}
