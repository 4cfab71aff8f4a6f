package imagetest_test

import (
	"testing"

	"github.com/innerdock/innerdock/pkg/image/imagetest"
)

func TestLocalRunner(t *testing.T) {
	imagetest.RunnerConformance(t, &imagetest.LocalRunner{Dir: t.TempDir()})
}
