package registry

import (
	"context"
	"io"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain runs the tests, or, as the child of one of them, a download that its
// parent kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("REGISTRY_TEST_DIR"); dir != "" {
		downloadForever(dir, os.Getenv("REGISTRY_TEST_UPSTREAM"), os.Getenv("REGISTRY_TEST_DIGEST"))
	}
	goleak.VerifyTestMain(m)
}

func downloadForever(dir, upstream, digest string) {
	cache, err := Open(Config{Dir: dir, Upstream: upstream})
	if err != nil {
		panic(err)
	}
	f, err := cache.downloads.follow(context.Background(), route{repository: "library/big", digest: digest, blob: true})
	if err != nil {
		panic(err)
	}
	_, err = io.Copy(io.Discard, f)
	panic(err)
}
