package e2e

import (
	"strings"
	"testing"

	"github.com/innerdock/innerdock"
)

// Over TCP nothing answers without a key, a key sees its tenant's sandboxes
// alone, and a revoked one sees nothing.
func TestKeysOverTCP(t *testing.T) {
	t.Parallel()
	s := listening(t, 225)
	key := func(tenant string) *innerdock.Client {
		t.Helper()
		made := s.cli(t, nil, "key", "create", "--tenant", tenant, "-o", "json")
		if made.code != 0 || !strings.Contains(made.stdout, "idk_") {
			t.Fatalf("key create: %+v", made)
		}
		text := made.stdout[strings.Index(made.stdout, "idk_"):]
		text = text[:strings.IndexByte(text, '"')]
		client, err := innerdock.New("http://"+s.address(), text)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		return client
	}
	acme, other := key("acme"), key("other")
	stranger, err := innerdock.New("http://"+s.address(), "idk_"+strings.Repeat("A", 43))
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()

	_, err = stranger.Version(t.Context())
	wantCode(t, err, innerdock.CodeUnauthorized)
	sandbox, err := acme.CreateSandbox(t.Context(), innerdock.SandboxSpec{Image: s.image(t, python).ID, Name: "ours"})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{sandbox.ID, "ours"} {
		_, err = other.Sandbox(t.Context(), name)
		wantCode(t, err, innerdock.CodeNotFound)
		_, err = other.Exec(t.Context(), name, innerdock.ProcessSpec{Args: []string{"true"}}, innerdock.Streams{})
		wantCode(t, err, innerdock.CodeNotFound)
		_, err = other.Terminate(t.Context(), name)
		wantCode(t, err, innerdock.CodeNotFound)
	}
	if list, err := other.Sandboxes(t.Context(), true); err != nil || len(list) != 0 {
		t.Errorf("the other tenant sees %+v, %v", list, err)
	}
	_, err = acme.Keys(t.Context())
	wantCode(t, err, innerdock.CodeForbidden)
	if _, err := acme.Terminate(t.Context(), "ours"); err != nil {
		t.Error(err)
	}
	keys, err := s.client.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range keys {
		if err := s.client.RevokeKey(t.Context(), info.ID); err != nil {
			t.Error(err)
		}
	}
	_, err = acme.Sandboxes(t.Context(), false)
	wantCode(t, err, innerdock.CodeUnauthorized)
}
