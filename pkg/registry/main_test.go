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
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/docker/go-events.(*Broadcaster).run")) // registrytest: its registries have no end
}

func downloadForever(dir, upstream, digest string) {
	cache, err := Open(Config{Dir: dir, Upstreams: []string{upstream}})
	if err != nil {
		panic(err)
	}
	f, err := cache.downloads.follow(context.Background(), bigBlob(digest))
	if err != nil {
		panic(err)
	}
	_, err = io.Copy(io.Discard, f)
	panic(err)
}

// bigBlob is what the image big is made of.
func bigBlob(digest string) route {
	return route{repository: "library/big", digest: digest, blob: true}
}
