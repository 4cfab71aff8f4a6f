// Package registrytest runs the reference registry, CNCF Distribution, in the
// process of a test: what images are really pushed to and pulled from.
package registrytest

import (
	"context"
	"io"
	"net/http"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // keeps it on disk
	"github.com/sirupsen/logrus"
)

// New returns a registry that is empty and ends with the test. It asks nobody for
// an account.
func New(t testing.TB) http.Handler {
	t.Helper()
	logrus.SetOutput(io.Discard) // the registry knows no other log
	config := &configuration.Configuration{Storage: configuration.Storage{
		"filesystem":  {"rootdirectory": t.TempDir()},
		"delete":      {"enabled": true},
		"maintenance": {"uploadpurging": map[any]any{"enabled": false}},
	}}
	config.Validation.Manifests.URLs.Allow = []string{"^https?://"} // of layers that are kept elsewhere
	registry := handlers.NewApp(context.WithoutCancel(t.Context()), config)
	t.Cleanup(func() {
		if err := registry.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	return registry
}
