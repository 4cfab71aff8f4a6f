package worker

import (
	"context"
	"errors"
	"testing"

	"github.com/innerdock/innerdock"
)

// Jobs are done in turn. What is asked for while it waits or is done is one job, and
// each image that is removed has its own: none is lost to another that is under way.
func TestJobs(t *testing.T) {
	m := maker{known: map[string]*job{}}
	one := m.want(job{key: "image one"})
	if got, ok := m.next(t.Context()); !ok || got != one {
		t.Fatalf("the first job is %+v", got)
	}
	if m.want(job{key: "image one"}) != one {
		t.Error("a job that is under way was taken twice")
	}
	two := m.want(job{key: "image two"})
	if got, ok := m.next(t.Context()); !ok || got != two || two == one {
		t.Fatalf("the second job is %+v", got)
	}
	m.finish(one, nil)
	if m.want(job{key: "image one"}) == one {
		t.Error("a job that is done cannot be asked for again")
	}
}

// What has failed for good is left alone, unless somebody asks for it again.
func TestFailedJobs(t *testing.T) {
	for name, tc := range map[string]struct {
		once  bool
		err   error
		known bool
	}{
		"a template":            {true, errors.New("broken"), true},
		"a template, of a full": {true, innerdock.Errorf(innerdock.CodeExhausted, "full"), false},
		"a template, well":      {true, nil, false},
		"a pool":                {false, errors.New("broken"), false},
	} {
		t.Run(name, func(t *testing.T) {
			m := maker{known: map[string]*job{}}
			first := m.want(job{key: "k", once: tc.once, make: func(context.Context) error { return tc.err }})
			m.finish(first, tc.err)
			<-first.done
			if !errors.Is(first.err, tc.err) {
				t.Errorf("it ended with %v", first.err)
			}
			if got := m.want(job{key: "k", once: tc.once}) == first; got != tc.known {
				t.Errorf("asked for once more, the failed job is what there is: %v", got)
			}
			if again := m.again(job{key: "k", once: tc.once}); again == first {
				t.Error("asked for again, it is not done again")
			}
		})
	}
}
