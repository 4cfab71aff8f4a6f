package imagetest_test

import (
	"testing"

	"github.com/innerdock/innerdock/pkg/image/imagetest"
)

func TestLocalRunner(t *testing.T) {
	imagetest.NeedRoot(t)
	imagetest.RunnerConformanceOn(t, &imagetest.LocalRunner{Dir: t.TempDir()}, imagetest.SmallRoot(t))
}
